"""The operations that a version's graph may have, by what they are for: a graph can only compute.

A graph is a program. TensorFlow has some 1,500 operations, and among them are those that read, write and list files, open
connections, run Python or end the process. What is not listed here is refused where a version is packaged, and again
by the agent before its server is told of it. The list is as long as the graphs of Reshelve's kinds need, in every
precision, with the nearest relatives: an operation joins it after somebody has read what its kernel does.
"""

from __future__ import annotations

from collections.abc import Mapping

GROUPS: Mapping[str, str] = {
    # What a graph is made of: its inputs, its weights, and calls of its own functions.
    "structure": "Const Identity IdentityN NoOp Placeholder PlaceholderWithDefault StopGradient PreventGradient EnsureShape",
    "functions, all of them in the graph itself": "PartitionedCall StatefulPartitionedCall If StatelessIf While StatelessWhile Case StatelessCase",
    # Words for the caller, in the status of the answer. Nothing is written but that status.
    "refusals": "Assert",
    "numbers": (
        "Abs Add AddN AddV2 All Any ArgMax ArgMin BiasAdd Ceil ClipByValue Cos Cumprod Cumsum Div DivNoNan Equal Erf Exp Expm1 "
        "Floor FloorDiv FloorMod Greater GreaterEqual Inv IsFinite IsInf IsNan LeakyRelu Less LessEqual Log Log1p LogSoftmax "
        "LogicalAnd LogicalNot LogicalOr Max Maximum Mean Min Minimum Mod Mul MulNoNan Neg NotEqual Pow Prod RealDiv Reciprocal "
        "Relu Relu6 Rint Round Rsqrt Select SelectV2 Sigmoid Sign Sin Softmax Softplus Sqrt Square SquaredDifference Sub Sum "
        "Tanh TruncateDiv TruncateMod Xdivy Xlogy ZerosLike OnesLike"
    ),
    "products": "BatchMatMul BatchMatMulV2 BatchMatMulV3 Einsum MatMul",
    # oneDNN's products of eight bits, and what rounds to them.
    "products of eight bits": "Bitcast Dequantize QuantizeV2 _QuantizedMatMul",
    "shapes": (
        "BroadcastArgs BroadcastTo Cast Concat ConcatV2 ExpandDims Fill Pack Pad PadV2 Range Rank Reshape ReverseV2 Roll Shape ShapeN "
        "Size Slice Split SplitV Squeeze StridedSlice Tile Transpose Unpack"
    ),
    "looking up and counting": (
        "Bincount Bucketize DenseBincount Gather GatherNd GatherV2 InTopKV2 InvertPermutation LowerBound OneHot RaggedGather "
        "RaggedRange ScatterNd SegmentMaxV2 SegmentSumV2 TensorScatterAdd TensorScatterUpdate TopKV2 Unique UniqueV2 "
        "UnsortedSegmentMax UnsortedSegmentMin UnsortedSegmentSum UpperBound Where"
    ),
    "texts": (
        "AsString DecodeBase64 EncodeBase64 RegexFullMatch RegexReplace StaticRegexFullMatch StaticRegexReplace StringJoin StringLength "
        "StringLower StringNGrams StringSplitV2 StringStrip StringToHashBucketFast StringToNumber StringUpper Substr "
        "ReduceJoin UnicodeDecode UnicodeDecodeWithOffsets UnicodeEncode UnicodeScript UnsortedSegmentJoin"
    ),
    "lists of tensors, as loops fill them": (
        "EmptyTensorList TensorListConcatV2 TensorListElementShape TensorListFromTensor TensorListGetItem TensorListLength "
        "TensorListPopBack TensorListPushBack TensorListReserve TensorListResize TensorListSetItem TensorListStack"
    ),
    # In the server's memory, from tensors of the graph itself.
    "tables": "HashTableV2 LookupTableFindV2 LookupTableImportV2 LookupTableSizeV2",
    # Read alone: what catalogue, memory and the product over the catalogue are in.
    "variables": "DisableCopyOnRead ReadVariableOp ResourceGather VarHandleOp VarIsInitializedOp",
}

OPERATIONS = frozenset(name for names in GROUPS.values() for name in names.split())

TABLE_FROM_FILE = frozenset({"InitializeTableFromTextFileV2"})
"""Only at the start of a version, of a file in its own `assets`, which TensorFlow gives its true path then."""

RESTORE = frozenset({"RestoreV2"})
"""Only in the function that TensorFlow's loader calls with the path of the version's own variables."""

ASSIGN = frozenset({"AssignVariableOp"})
"""Only there too, or in the graph where no request runs it: a variable that a request changed would answer the next one."""

SAVE = frozenset({"MergeV2Checkpoints", "SaveV2", "ShardedFilename"})
"""Every SavedModel has them, in a function that no server calls."""
