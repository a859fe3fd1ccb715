"""What a person types."""

import os

# OpenMP's threads spin while they wait for one another. Beside anything else that computes (the encoders here, the
# data processes of training, another program) a spinning thread keeps the one it waits for from its core. Read once,
# when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
