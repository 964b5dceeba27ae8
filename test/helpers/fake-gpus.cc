/* What of CUDA's driver and libraries has to answer; buildFakeGpus adds the rest, which does nothing. Compiled with -DGPUS=<count>. */
#include <string.h>

extern "C" {

typedef unsigned long long u64;

int cuDeviceGetCount(int* count) { *count = GPUS; return 0; }
int cuDeviceGet(int* device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char* name, int length, int device) { strncpy(name, "Fake H200", length); return 0; }
int cuDeviceGetUuid_v2(unsigned char* uuid, int device) { memset(uuid, 0, 16); uuid[15] = device + 1; return 0; }
int cuDeviceTotalMem_v2(u64* bytes, int device) { *bytes = 140ull << 30; return 0; }
int cuDeviceGetAttribute(int* value, int attribute, int device) { *value = attribute == 75 ? 9 : attribute == 97 ? 232448 : 0; return 0; }
int cuMemGetInfo_v2(u64* free, u64* total) { *free = *total = 140ull << 30; return 0; }
int cuMemAlloc_v2(u64* address, u64 bytes) { static u64 next = 1ull << 32; *address = next; next += bytes; return 0; }
int nvrtcVersion(int* major, int* minor) { *major = 13; *minor = 0; return 0; }
}
