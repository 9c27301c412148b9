/* A stand-in for libnvidia-ml.so.1: answers from the text file that COLOC_NVML_STANDIN names, one fact a line
 * (see servers.py). Declarations are NVIDIA's own, so that a wrong signature does not compile.
 * -DNO_FABRIC, -DNO_REMOTE_TYPE, -DNO_LINKS leave functions out, as old drivers do. */
#include <nvml.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GPUS 16
#define LINKS 18
#define PROCESSES 8
#define MIG 4 /* instances of GPU i stand at GPUS + MIG * i */

typedef struct {
    int minor, numa, own_numa, mig, links, fabric_state, clique;
    unsigned long long memory;
    char uuid[80], name[96], bus[32], cpus[256], cluster[33];
    int up[LINKS], kind[LINKS];
    char far[LINKS][32];
    long long sm, membusy, used, power, clock, mclock, tx, rx, linkerr, ecc, corrected, remap;
    int processes, pid[PROCESSES], instances;
    unsigned long long pid_memory[PROCESSES];
} Gpu;

static Gpu gpu[GPUS + MIG * GPUS];
static struct { int gpu, xid, told; } event[64];
static int events;
static int count, init_code, path[GPUS][GPUS], peer[GPUS][GPUS];
static char driver[80] = "570.00";
static struct { char function[64]; int gpu, code; } fault[64];
static int faults;

static int failing(const char *function, int index) {
    for (int i = 0; i < faults; i++)
        if (!strcmp(fault[i].function, function) && (fault[i].gpu < 0 || fault[i].gpu == index)) return fault[i].code;
    return 0;
}

static int at(nvmlDevice_t device) { return (int)((Gpu *)device - gpu); }
#define FAIL(function, index) do { int code_ = failing(function, index); if (code_) return (nvmlReturn_t)code_; } while (0)

static void load(void) {
    const char *file = getenv("COLOC_NVML_STANDIN");
    FILE *in = file ? fopen(file, "r") : NULL;
    char line[512], word[64], a[300], b[64];
    int i, j, k;
    count = faults = init_code = 0;
    memset(gpu, 0, sizeof gpu);
    for (i = 0; i < GPUS + MIG * GPUS; i++) {
        Gpu *g = &gpu[i];
        g->numa = g->own_numa = g->mig = -1;
        g->sm = g->membusy = g->power = g->clock = g->mclock = g->tx = g->rx = g->linkerr = g->ecc = g->corrected = g->remap = -1;
        g->minor = i;
    }
    if (!in) { init_code = NVML_ERROR_DRIVER_NOT_LOADED; return; }
    while (fgets(line, sizeof line, in)) {
        if (sscanf(line, "driver %79s", driver) == 1) continue;
        if (sscanf(line, "init %d", &init_code) == 1) continue;
        if (sscanf(line, "fail %63s %d %d", fault[faults].function, &fault[faults].gpu, &fault[faults].code) == 3) { faults++; continue; }
        if (sscanf(line, "link %d %d %63s %63s", &i, &j, word, b) == 4) {
            gpu[i].up[j] = strcmp(word, "down") != 0;
            gpu[i].kind[j] = !strcmp(word, "gpu") ? 0 : !strcmp(word, "npu") ? 1 : !strcmp(word, "switch") ? 2 : 255;
            snprintf(gpu[i].far[j], 32, "%s", strcmp(b, "-") ? b : "");
            if (gpu[i].links <= j) gpu[i].links = j + 1;
            continue;
        }
        if (sscanf(line, "path %d %d %d", &i, &j, &k) == 3) { path[i][j] = path[j][i] = k; continue; }
        if (sscanf(line, "peer %d %d %d", &i, &j, &k) == 3) { peer[i][j] = peer[j][i] = k; continue; }
        if (sscanf(line, "fabric %d %d %d %32s", &i, &j, &k, a) == 4) {
            gpu[i].fabric_state = j; gpu[i].clique = k; snprintf(gpu[i].cluster, 33, "%s", a); continue;
        }
        if (sscanf(line, "proc %d %d %300s", &i, &j, a) == 3) {
            Gpu *g = &gpu[i];
            g->pid[g->processes] = j;
            g->pid_memory[g->processes++] = strtoull(a, NULL, 10);
            continue;
        }
        if (sscanf(line, "xid %d %d %d", &i, &j, &k) == 3) { /* the k-th event: GPU, XID */
            if (k >= events) { event[k].gpu = i; event[k].xid = j; event[k].told = 0; events = k + 1; }
            continue;
        }
        if (sscanf(line, "instance %d %d %63s %300s", &i, &j, b, a) == 4) {
            Gpu *g = &gpu[GPUS + MIG * i + j];
            snprintf(g->uuid, sizeof g->uuid, "%s", b);
            g->memory = strtoull(a, NULL, 10);
            g->used = 1 << 20;
            if (gpu[i].instances <= j) gpu[i].instances = j + 1;
            continue;
        }
        if (sscanf(line, "gpu %d %63s %255[^\n]", &i, word, a) == 3) {
            Gpu *g = &gpu[i];
            if (count <= i) count = i + 1;
            if (!strcmp(word, "minor")) g->minor = atoi(a);
            if (!strcmp(word, "numa")) g->numa = atoi(a);
            if (!strcmp(word, "own_numa")) g->own_numa = atoi(a);
            if (!strcmp(word, "mig")) g->mig = atoi(a);
            if (!strcmp(word, "memory")) g->memory = strtoull(a, NULL, 10);
#define LOAD(name) if (!strcmp(word, #name)) g->name = atoll(a);
            LOAD(sm) LOAD(membusy) LOAD(used) LOAD(power) LOAD(clock) LOAD(mclock)
            LOAD(tx) LOAD(rx) LOAD(linkerr) LOAD(ecc) LOAD(corrected) LOAD(remap)
            if (!strcmp(word, "uuid")) snprintf(g->uuid, sizeof g->uuid, "%s", a);
            if (!strcmp(word, "name")) snprintf(g->name, sizeof g->name, "%s", a);
            if (!strcmp(word, "bus")) snprintf(g->bus, sizeof g->bus, "%s", a);
            if (!strcmp(word, "cpus")) snprintf(g->cpus, sizeof g->cpus, "%s", a);
        }
    }
    fclose(in);
}

nvmlReturn_t nvmlInitWithFlags(unsigned int flags) {
    load();
    return (nvmlReturn_t)init_code;
}
nvmlReturn_t nvmlShutdown(void) { return NVML_SUCCESS; }
const char *nvmlErrorString(nvmlReturn_t result) {
    static char text[40];
    if (result == NVML_ERROR_GPU_IS_LOST) return "GPU is lost";
    if (result == NVML_ERROR_DRIVER_NOT_LOADED) return "Driver Not Loaded";
    snprintf(text, sizeof text, "error %d", result);
    return text;
}
nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length) {
    snprintf(version, length, "%s", driver);
    return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *out) {
    load(); /* what is true may have changed since the last sample */
    if (init_code) return NVML_ERROR_UNINITIALIZED;
    FAIL("nvmlDeviceGetCount", -1);
    *out = (unsigned int)count;
    return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device) {
    FAIL("nvmlDeviceGetHandleByIndex", (int)index);
    if ((int)index >= count) return NVML_ERROR_INVALID_ARGUMENT;
    *device = (nvmlDevice_t)&gpu[index];
    return NVML_SUCCESS;
}
#define TEXT(function, field) \
    nvmlReturn_t function(nvmlDevice_t device, char *out, unsigned int length) { \
        FAIL(#function, at(device)); \
        snprintf(out, length, "%s", gpu[at(device)].field); \
        return NVML_SUCCESS; \
    }
TEXT(nvmlDeviceGetUUID, uuid)
TEXT(nvmlDeviceGetName, name)
#define NUMBER(function, type, field) \
    nvmlReturn_t function(nvmlDevice_t device, type *out) { \
        FAIL(#function, at(device)); \
        if (gpu[at(device)].field < 0) return NVML_ERROR_NOT_SUPPORTED; \
        *out = (type)gpu[at(device)].field; \
        return NVML_SUCCESS; \
    }
NUMBER(nvmlDeviceGetMinorNumber, unsigned int, minor)
NUMBER(nvmlDeviceGetNumaNodeId, unsigned int, own_numa)
nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *now, unsigned int *then) {
    FAIL("nvmlDeviceGetMigMode", at(device));
    if (gpu[at(device)].mig < 0) return NVML_ERROR_NOT_SUPPORTED;
    *now = *then = (unsigned int)gpu[at(device)].mig;
    return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    FAIL("nvmlDeviceGetMemoryInfo", at(device));
    memory->total = gpu[at(device)].memory;
    memory->used = (unsigned long long)gpu[at(device)].used;
    memory->free = memory->total - memory->used;
    return NVML_SUCCESS;
}
static void address(const char *text, nvmlPciInfo_t *pci) {
    memset(pci, 0, sizeof *pci);
    snprintf(pci->busId, sizeof pci->busId, "%s", text);
}
nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci) {
    FAIL("nvmlDeviceGetPciInfo", at(device));
    address(gpu[at(device)].bus, pci);
    return NVML_SUCCESS;
}
static void bits(const char *list, unsigned int words, unsigned long *set) {
    memset(set, 0, words * sizeof *set);
    for (const char *at_ = list; *at_;) {
        char *end;
        unsigned long low = strtoul(at_, &end, 10), high = low;
        if (end == at_) return;
        if (*end == '-') high = strtoul(end + 1, &end, 10);
        for (; low <= high && low < words * 64; low++) set[low / 64] |= 1UL << low % 64;
        at_ = *end == ',' ? end + 1 : end;
    }
}
nvmlReturn_t nvmlDeviceGetCpuAffinity(nvmlDevice_t device, unsigned int words, unsigned long *set) {
    FAIL("nvmlDeviceGetCpuAffinity", at(device));
    if (!gpu[at(device)].cpus[0]) return NVML_ERROR_NOT_SUPPORTED;
    bits(gpu[at(device)].cpus, words, set);
    return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetMemoryAffinity(nvmlDevice_t device, unsigned int words, unsigned long *set, nvmlAffinityScope_t scope) {
    char list[16];
    FAIL("nvmlDeviceGetMemoryAffinity", at(device));
    if (gpu[at(device)].numa < 0) return NVML_ERROR_NOT_SUPPORTED;
    snprintf(list, sizeof list, "%d", gpu[at(device)].numa);
    bits(list, words, set);
    return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t one, nvmlDevice_t two, nvmlGpuTopologyLevel_t *level) {
    FAIL("nvmlDeviceGetTopologyCommonAncestor", at(one));
    *level = (nvmlGpuTopologyLevel_t)path[at(one)][at(two)];
    return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetP2PStatus(nvmlDevice_t one, nvmlDevice_t two, nvmlGpuP2PCapsIndex_t cap, nvmlGpuP2PStatus_t *status) {
    FAIL("nvmlDeviceGetP2PStatus", at(one));
    *status = cap == NVML_P2P_CAPS_INDEX_NVLINK ? (nvmlGpuP2PStatus_t)peer[at(one)][at(two)] : NVML_P2P_STATUS_OK;
    return NVML_SUCCESS;
}
#ifndef NO_LINKS
nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned int link, nvmlEnableState_t *state) {
    FAIL("nvmlDeviceGetNvLinkState", at(device));
    if (!gpu[at(device)].links) return NVML_ERROR_NOT_SUPPORTED;
    if ((int)link >= gpu[at(device)].links) return NVML_ERROR_INVALID_ARGUMENT;
    *state = gpu[at(device)].up[link] ? NVML_FEATURE_ENABLED : NVML_FEATURE_DISABLED;
    return NVML_SUCCESS;
}
#endif
nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t device, unsigned int link, nvmlPciInfo_t *pci) {
    FAIL("nvmlDeviceGetNvLinkRemotePciInfo", at(device));
    if (!gpu[at(device)].far[link][0]) return NVML_ERROR_NOT_SUPPORTED;
    address(gpu[at(device)].far[link], pci);
    return NVML_SUCCESS;
}
#ifndef NO_REMOTE_TYPE
nvmlReturn_t nvmlDeviceGetNvLinkRemoteDeviceType(nvmlDevice_t device, unsigned int link, nvmlIntNvLinkDeviceType_t *type) {
    FAIL("nvmlDeviceGetNvLinkRemoteDeviceType", at(device));
    *type = (nvmlIntNvLinkDeviceType_t)gpu[at(device)].kind[link];
    return NVML_SUCCESS;
}
#endif
#ifndef NO_FABRIC
nvmlReturn_t nvmlDeviceGetGpuFabricInfoV(nvmlDevice_t device, nvmlGpuFabricInfoV_t *info) {
    Gpu *g = &gpu[at(device)];
    nvmlGpuFabricInfo_v2_t *out = (nvmlGpuFabricInfo_v2_t *)info;
    FAIL("nvmlDeviceGetGpuFabricInfoV", at(device));
    if (out->version != nvmlGpuFabricInfo_v2) return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    if (!g->fabric_state) return NVML_ERROR_NOT_SUPPORTED;
    for (int i = 0; i < NVML_GPU_FABRIC_UUID_LEN; i++) {
        unsigned int byte = 0;
        sscanf(g->cluster + 2 * i, "%2x", &byte);
        out->clusterUuid[i] = (unsigned char)byte;
    }
    out->status = NVML_SUCCESS;
    out->cliqueId = (unsigned int)g->clique;
    out->state = (nvmlGpuFabricState_t)g->fabric_state;
    return NVML_SUCCESS;
}
#endif

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates) {
    Gpu *g = &gpu[at(device)];
    FAIL("nvmlDeviceGetUtilizationRates", at(device));
    if (g->sm < 0 || g->mig == 1) return NVML_ERROR_NOT_SUPPORTED;
    rates->gpu = (unsigned int)g->sm;
    rates->memory = (unsigned int)g->membusy;
    return NVML_SUCCESS;
}
NUMBER(nvmlDeviceGetPowerUsage, unsigned int, power)
nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, nvmlClockType_t kind, unsigned int *clock) {
    long long value = kind == NVML_CLOCK_SM ? gpu[at(device)].clock : gpu[at(device)].mclock;
    FAIL("nvmlDeviceGetClockInfo", at(device));
    if (value < 0) return NVML_ERROR_NOT_SUPPORTED;
    *clock = (unsigned int)value;
    return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, nvmlMemoryErrorType_t kind, nvmlEccCounterType_t counter, unsigned long long *errors) {
    long long value = kind == NVML_MEMORY_ERROR_TYPE_UNCORRECTED ? gpu[at(device)].ecc : gpu[at(device)].corrected;
    FAIL("nvmlDeviceGetTotalEccErrors", at(device));
    if (value < 0 || counter != NVML_VOLATILE_ECC) return NVML_ERROR_NOT_SUPPORTED;
    *errors = (unsigned long long)value;
    return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int number, nvmlFieldValue_t *values) {
    Gpu *g = &gpu[at(device)];
    FAIL("nvmlDeviceGetFieldValues", at(device));
    for (int i = 0; i < number; i++) {
        unsigned int field = values[i].fieldId;
        long long value = field == NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX && values[i].scopeId == 0xFFFFFFFFu ? g->tx
                        : field == NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX && values[i].scopeId == 0xFFFFFFFFu ? g->rx
                        : field == NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL ? g->linkerr : -1;
        values[i].nvmlReturn = value < 0 ? NVML_ERROR_NOT_SUPPORTED : NVML_SUCCESS;
        values[i].valueType = NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
        values[i].value.ullVal = (unsigned long long)value;
    }
    return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned int *corrected, unsigned int *uncorrected, unsigned int *pending, unsigned int *failed) {
    FAIL("nvmlDeviceGetRemappedRows", at(device));
    if (gpu[at(device)].remap < 0) return NVML_ERROR_NOT_SUPPORTED;
    *corrected = *uncorrected = 0;
    *pending = gpu[at(device)].remap & 1;
    *failed = gpu[at(device)].remap >> 1 & 1;
    return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetRetiredPagesPendingStatus(nvmlDevice_t device, nvmlEnableState_t *pending) {
    FAIL("nvmlDeviceGetRetiredPagesPendingStatus", at(device));
    return NVML_ERROR_NOT_SUPPORTED;
}
nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *number, nvmlProcessInfo_t *infos) {
    Gpu *g = &gpu[at(device)];
    unsigned int room = *number;
    FAIL("nvmlDeviceGetComputeRunningProcesses", at(device));
    *number = (unsigned int)g->processes;
    if (!infos && g->processes) return NVML_ERROR_INSUFFICIENT_SIZE;
    if (room < (unsigned int)g->processes) return NVML_ERROR_INSUFFICIENT_SIZE;
    for (int i = 0; i < g->processes; i++) {
        memset(&infos[i], 0, sizeof infos[i]);
        infos[i].pid = (unsigned int)g->pid[i];
        infos[i].usedGpuMemory = g->pid_memory[i];
    }
    return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned int *number) {
    FAIL("nvmlDeviceGetMaxMigDeviceCount", at(device));
    *number = MIG;
    return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index, nvmlDevice_t *instance) {
    FAIL("nvmlDeviceGetMigDeviceHandleByIndex", at(device));
    if ((int)index >= gpu[at(device)].instances) return NVML_ERROR_NOT_FOUND;
    *instance = (nvmlDevice_t)&gpu[GPUS + MIG * at(device) + (int)index];
    return NVML_SUCCESS;
}
nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set) {
    FAIL("nvmlEventSetCreate", -1);
    *set = (nvmlEventSet_t)event;
    return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long kinds, nvmlEventSet_t set) {
    FAIL("nvmlDeviceRegisterEvents", at(device));
    return kinds & nvmlEventTypeXidCriticalError ? NVML_SUCCESS : NVML_ERROR_INVALID_ARGUMENT;
}
nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeout) {
    for (int i = 0; i < events; i++)
        if (!event[i].told) {
            event[i].told = 1;
            memset(data, 0, sizeof *data);
            data->device = (nvmlDevice_t)&gpu[event[i].gpu];
            data->eventType = nvmlEventTypeXidCriticalError;
            data->eventData = (unsigned long long)event[i].xid;
            return NVML_SUCCESS;
        }
    return NVML_ERROR_TIMEOUT;
}
nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set) { return NVML_SUCCESS; }
