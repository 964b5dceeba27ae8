// All operations for one instruction set. The build compiles this file once per variant with -DSEGUE_VARIANT=<name> and its flags.
#include "scan-backward.h"
#include "scan-forward.h"
#include "states.h"
