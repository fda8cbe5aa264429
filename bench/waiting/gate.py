"""What keeps calls of other modules waiting."""

import os
import time

from bourse import function


@function
def hold(file: str):
    while not os.path.exists(file):
        time.sleep(0.02)
