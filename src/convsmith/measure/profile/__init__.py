"""Where the time of a forward pass goes: by category, operator, module and layer, beside what the device could do."""

from convsmith.measure.profile.categories import CATEGORIES, Category, category_of
from convsmith.measure.profile.result import UNATTRIBUTED, VIEWS, Profile, Share, Slowdown, Step, check_view
from convsmith.measure.profile.run import PROFILERS, profile

__all__ = [
    "CATEGORIES",
    "PROFILERS",
    "UNATTRIBUTED",
    "VIEWS",
    "Category",
    "Profile",
    "Share",
    "Slowdown",
    "Step",
    "category_of",
    "check_view",
    "profile",
]
