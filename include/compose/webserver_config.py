"""Airflow's log-in by OpenID Connect: read by the FAB auth manager where AIRFLOW__FAB__CONFIG_FILE names this file.

    OIDC_ISSUER          what the provider calls itself; its /.well-known/openid-configuration is read
    OIDC_CLIENT_ID       how the provider knows Airflow
    OIDC_CLIENT_SECRET   or OIDC_CLIENT_SECRET_FILE, the path of a file with it
    OIDC_ROLES           group=role, …: `ranking=User, ranking-leads=Op`; whoever is in none of the groups may do nothing
    OIDC_GROUPS_CLAIM    the claim with a person's groups (default: groups)
    OIDC_NAME_CLAIM      the claim with the name a person acts under (default: preferred_username)
    OIDC_SCOPE           default: openid email profile

All about it: docs/how-to/log-in.md. Raises ValueError where a variable is missing or wrong: the API server then does not start.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airflow.providers.fab.auth_manager.security_manager.override import FabAirflowSecurityManagerOverride
from flask_appbuilder.const import AUTH_OAUTH

ROLES = ("Viewer", "User", "Op", "Admin")


def _needed(name: str) -> str:
    if value := os.environ.get(name, "").strip():
        return value
    raise ValueError(f"{name} is not set (docs/how-to/log-in.md)")


def _secret() -> str:
    if file := os.environ.get("OIDC_CLIENT_SECRET_FILE"):
        return Path(file).read_text().strip()
    return _needed("OIDC_CLIENT_SECRET")


def _issuer() -> str:
    """Over HTTPS, or on this very machine: whoever can change the answers could log in as anybody."""
    issuer = _needed("OIDC_ISSUER").rstrip("/")
    found = urlsplit(issuer)
    if found.scheme == "https" or (found.scheme == "http" and found.hostname in ("127.0.0.1", "localhost")):
        return issuer
    raise ValueError(f"OIDC_ISSUER: {issuer}: an address with https:// is needed")


def _roles(text: str) -> dict[str, list[str]]:
    """Group → Airflow's roles for its members."""
    found: dict[str, list[str]] = {}
    for pair in filter(None, map(str.strip, text.split(","))):
        group, equals, role = (part.strip() for part in pair.rpartition("="))
        if not group or not equals or not role:
            raise ValueError(f"OIDC_ROLES: {pair!r} is no group=role, such as ranking=User")
        found.setdefault(group, []).append(role)
    if not found:
        raise ValueError(f"OIDC_ROLES names no group: nobody could do anything. Roles are {', '.join(ROLES)}")
    return found


_CLIENT = _needed("OIDC_CLIENT_ID")
_NAME = os.environ.get("OIDC_NAME_CLAIM") or "preferred_username"
_GROUPS = os.environ.get("OIDC_GROUPS_CLAIM") or "groups"


class OidcSecurityManager(FabAirflowSecurityManagerOverride):
    """Who somebody is: what their ID token says, and the provider's userinfo where the token leaves something out."""

    def get_oauth_user_info(self, provider: str, resp: dict[str, Any]) -> dict[str, Any]:
        """Raises ValueError, and nobody is logged in, where the token is another program's, names nobody, or an address of
        e-mail is not verified.
        """
        claims = resp["userinfo"]  # of the ID token, whose signature, issuer, nonce and time were checked
        audience = claims["aud"]
        if _CLIENT not in ([audience] if isinstance(audience, str) else audience):
            raise ValueError("the ID token is for another program")
        if not {_NAME, _GROUPS} <= claims.keys():
            more = self.oauth_remotes[provider].userinfo()
            if more.get("sub") != claims["sub"]:
                raise ValueError("the provider's userinfo is about somebody else")
            claims = {**more, **claims}
        if not claims.get(_NAME):
            raise ValueError(f"the provider's claim {_NAME} is missing (OIDC_NAME_CLAIM)")
        if _NAME == "email" and claims.get("email_verified") is not True:
            raise ValueError("the provider has not verified this person's address of e-mail")
        groups = claims.get(_GROUPS) or []
        return {
            "username": claims[_NAME],
            "first_name": claims.get("given_name", ""),
            "last_name": claims.get("family_name", ""),
            "email": claims.get("email", ""),
            "role_keys": [groups] if isinstance(groups, str) else list(groups),
        }


AUTH_TYPE = AUTH_OAUTH
SECURITY_MANAGER_CLASS = OidcSecurityManager
OAUTH_PROVIDERS = [
    {
        "name": "oidc",
        "icon": "fa-key",
        "token_key": "access_token",
        "remote_app": {
            "client_id": _CLIENT,
            "client_secret": _secret(),
            "server_metadata_url": f"{_issuer()}/.well-known/openid-configuration",
            "client_kwargs": {
                "scope": os.environ.get("OIDC_SCOPE") or "openid email profile",
                "code_challenge_method": "S256",
            },
        },
    }
]
# Whoever the provider knows is known here; what they may do, their groups say anew at each log-in.
AUTH_USER_REGISTRATION = True
AUTH_USER_REGISTRATION_ROLE = "Public"  # a role without rights
AUTH_ROLES_MAPPING = _roles(_needed("OIDC_ROLES"))
AUTH_ROLES_SYNC_AT_LOGIN = True
