"""Make roles and people in the FAB auth manager's database, as JSON on standard input says: run where the provider is installed."""

from __future__ import annotations

import json
import sys

from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

asked = json.load(sys.stdin)
with get_application_builder() as builder:
    manager = builder.sm
    manager.sync_roles()
    for name, rights in asked["roles"].items():
        role = manager.add_role(name)
        for action, resource in rights:
            manager.add_permission_to_role(role, manager.create_permission(action, resource))
    for name, person in asked["people"].items():
        role, address = manager.find_role(person["role"]), f"{name}@shop.example"
        assert role and manager.add_user(name, name, name, address, [role], person["password"]), name
