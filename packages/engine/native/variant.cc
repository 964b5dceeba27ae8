// All operations for one instruction set. The build compiles this file once per variant with -DSEGUE_VARIANT=<name> and its flags.
#include "dense.h"
#include "gemm.h"
#include "mixer.h"
#include "scan.h"
