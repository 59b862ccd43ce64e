"""Operations on packed weights, in plain torch for every device; one folder a weight format.

Importing a folder registers its operations with torch and does nothing else.
"""

from bedstone.kernels.library import workspace_bytes as workspace_bytes

__all__ = ["workspace_bytes"]
