/* NVML in small: the functions that bedstone asks, for a machine with three GPUs that never was. GPU 0 is whole, GPU 1 is
   partitioned with one instance, GPU 2 is lost. Signatures after NVIDIA's NVML API Reference Guide. */
#include <stdio.h>
#include <string.h>

typedef struct { int gpu, instance; } device_t;
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } pci_t;

static device_t devices[3] = {{0, 0}, {1, 0}, {2, 0}}, part = {1, 1};
static int running = 0;

static int say(char *out, unsigned size, const char *text) { snprintf(out, size, "%s", text); return 0; }

int nvmlInit_v2(void) { running++; return INIT; }
int nvmlShutdown(void) { running--; return 0; }
int still_running(void) { return running; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 3; return 0; }
int nvmlSystemGetDriverVersion(char *out, unsigned size) { return say(out, size, "580.65.06"); }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t **device) {
  *device = &devices[index];
  return index == 2 ? 15 : 0;
}
int nvmlDeviceGetName(device_t *d, char *out, unsigned size) {
  return say(out, size, d->instance ? "NVIDIA H100 MIG 1g.10gb" : "NVIDIA H100");
}
int nvmlDeviceGetUUID(device_t *d, char *out, unsigned size) {
  return say(out, size, d->instance ? "MIG-aaaa" : d->gpu ? "GPU-1111" : "GPU-0000");
}
int nvmlDeviceGetMemoryInfo(device_t *d, memory_t *m) {
  m->total = d->instance ? 10ULL << 30 : 80ULL << 30;
  m->free = m->total - 4096;
  m->used = 4096;
  return 0;
}
int nvmlDeviceGetPciInfo_v3(device_t *d, pci_t *p) {
  memset(p, 0, sizeof *p);
  p->bus = 0x3b + d->gpu;
  strcpy(p->bus_id, "00000000:3B:00.0");
  return 0;
}
int nvmlDeviceGetCudaComputeCapability(device_t *d, int *major, int *minor) { *major = 9; *minor = 0; return 0; }
int nvmlDeviceGetComputeMode(device_t *d, unsigned *mode) { *mode = d->gpu ? 0 : 3; return 0; }
int nvmlDeviceGetComputeRunningProcesses_v3(device_t *d, unsigned *count, void *infos) {
  *count = d->gpu ? 0 : 2;
  return d->gpu ? 0 : 7; /* "insufficient size": there are some, and no room was given */
}
int nvmlDeviceGetMigMode(device_t *d, unsigned *current, unsigned *pending) {
  *current = *pending = d->gpu;
  return d->gpu ? 0 : 3; /* "not supported" */
}
int nvmlDeviceGetMaxMigDeviceCount(device_t *d, unsigned *count) { *count = 7; return 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(device_t *d, unsigned index, device_t **instance) {
  *instance = &part;
  return index == 2 ? 0 : 6; /* "not found" in every slot but one */
}
int nvmlDeviceGetGpuInstanceId(device_t *d, unsigned *id) { *id = 9; return 0; }
int nvmlDeviceGetComputeInstanceId(device_t *d, unsigned *id) { *id = 1; return 0; }
int cuDriverGetVersion(int *version) { *version = 13010; return 0; }
