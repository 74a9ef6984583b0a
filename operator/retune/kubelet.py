"""Why a container waits, in the kubelet's words: one list for all who read pods.

The reasons named here do not pass by themselves. Those that do, such as ContainerCreating, are never trouble.
"""

IMAGE_PULL_FAILED = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
)
"""The image cannot be fetched."""
CANNOT_START = IMAGE_PULL_FAILED | {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
"""The container cannot be started for the first time."""
STUCK = CANNOT_START | {"CrashLoopBackOff"}
"""The container does not run: it cannot be started, or ends again and again."""
