/* NVIDIA's management library as far as Segue uses it, with two GPUs: the second is an instance (MIG), which tells memory only. */
#include <string.h>

extern "C" {

#define SUCCESS 0
#define NOT_FOUND 6
#define NOT_SUPPORTED 3

typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned int gpu, memory; } Utilisation;

static int users;
static const char first[] = "GPU-00000000-0000-0000-0000-000000000001";
static const char second[] = "MIG-00000000-0000-0000-0000-000000000002";

int nvmlInit_v2(void) { users++; return SUCCESS; }
int nvmlShutdown(void) { users--; return SUCCESS; }
int nvmlSystemGetDriverVersion(char* version, unsigned int length) { strncpy(version, "580.65.06", length); return SUCCESS; }
int nvmlDeviceGetHandleByUUID(const char* uuid, const char** device) {
  *device = strcmp(uuid, first) == 0 ? first : strcmp(uuid, second) == 0 ? second : 0;
  return *device ? SUCCESS : NOT_FOUND;
}
int nvmlDeviceGetMemoryInfo(const char* device, Memory* memory) {
  memory->total = 150754820096ull;
  memory->used = device == first ? 85899345920ull : 1073741824ull;
  memory->free = memory->total - memory->used;
  return SUCCESS;
}
int nvmlDeviceGetUtilizationRates(const char* device, Utilisation* rates) {
  if (device == second) return NOT_SUPPORTED;
  rates->gpu = 97;
  rates->memory = 41;
  return SUCCESS;
}
int nvmlDeviceGetTemperature(const char* device, int sensor, unsigned int* celsius) {
  if (device == second || sensor != 0) return NOT_SUPPORTED;
  *celsius = 63;
  return SUCCESS;
}
/* Not NVML's: who has not shut it down. */
int fakeUsers(void) { return users; }
}
