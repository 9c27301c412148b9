/* A stand-in for libnvidia-ml.so.1: answers from the text file that COLOC_NVML_STANDIN names, one fact a line
 * (see servers.py). Declarations are NVIDIA's own, so that a wrong signature does not compile.
 * -DNO_FABRIC, -DNO_REMOTE_TYPE, -DNO_LINKS leave functions out, as old drivers do. */
#include <nvml.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GPUS 16
#define LINKS 18

typedef struct {
    int minor, numa, own_numa, mig, links, fabric_state, clique;
    unsigned long long memory;
    char uuid[80], name[96], bus[32], cpus[256], cluster[33];
    int up[LINKS], kind[LINKS];
    char far[LINKS][32];
} Gpu;

static Gpu gpu[GPUS];
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
        if (sscanf(line, "gpu %d %63s %255[^\n]", &i, word, a) == 3) {
            Gpu *g = &gpu[i];
            if (count <= i) count = i + 1;
            if (!strcmp(word, "minor")) g->minor = atoi(a);
            if (!strcmp(word, "numa")) g->numa = atoi(a);
            if (!strcmp(word, "own_numa")) g->own_numa = atoi(a);
            if (!strcmp(word, "mig")) g->mig = atoi(a);
            if (!strcmp(word, "memory")) g->memory = strtoull(a, NULL, 10);
            if (!strcmp(word, "uuid")) snprintf(g->uuid, sizeof g->uuid, "%s", a);
            if (!strcmp(word, "name")) snprintf(g->name, sizeof g->name, "%s", a);
            if (!strcmp(word, "bus")) snprintf(g->bus, sizeof g->bus, "%s", a);
            if (!strcmp(word, "cpus")) snprintf(g->cpus, sizeof g->cpus, "%s", a);
        }
    }
    fclose(in);
}

nvmlReturn_t nvmlInitWithFlags(unsigned int flags) {
    for (int i = 0; i < GPUS; i++) { gpu[i].numa = gpu[i].own_numa = gpu[i].mig = -1; gpu[i].minor = i; }
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
    memory->used = memory->free = 0;
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
