from __future__ import annotations

from served import environment, middlewares, page, table, users

__all__ = ["environment", "middlewares", "page", "table", "users"]
