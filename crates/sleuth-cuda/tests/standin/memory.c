/* Memory of devices, and pinned memory of the host. */
#include "standin.h"

#include <stdlib.h>
#include <string.h>

#define GRANULE 512
#define JUNK 0xa5

static size_t rounded(size_t bytes) { return (bytes + GRANULE - 1) / GRANULE * GRANULE; }

EXPORT result cuMemGetInfo_v2(size_t *available, size_t *total) {
    struct device *device;
    result code = begin_current("cuMemGetInfo_v2", &device);
    if (code != SUCCESS) return leave(code);
    size_t taken = device->used + device->foreign;
    *available = taken > device->limit ? 0 : device->limit - taken;
    *total = device->limit;
    return leave(SUCCESS);
}

EXPORT result cuMemAlloc_v2(address *at, size_t bytes) {
    struct device *device;
    result code = begin_current("cuMemAlloc_v2", &device);
    if (code != SUCCESS) return leave(code);
    if (bytes == 0) return leave(INVALID_VALUE);
    if (device->used + device->foreign + rounded(bytes) > device->limit) return leave(OUT_OF_MEMORY);
    struct allocation *allocation = malloc(sizeof *allocation);
    *allocation = (struct allocation){
        .at = device->next_address,
        .bytes = bytes,
        .store = malloc(bytes),
        .next = device->allocations,
    };
    memset(allocation->store, JUNK, bytes);
    /* Addresses are never used again and have gaps, so that stale and wild ones are found. */
    device->next_address += rounded(bytes) + GRANULE;
    device->used += rounded(bytes);
    device->allocations = allocation;
    *at = allocation->at;
    return leave(SUCCESS);
}

EXPORT result cuMemFree_v2(address at) {
    struct device *device;
    result code = begin_current("cuMemFree_v2", &device);
    if (code != SUCCESS) return leave(code);
    for (struct allocation **link = &device->allocations; *link; link = &(*link)->next) {
        struct allocation *found = *link;
        if (found->at != at) continue;
        if (is_pending(current()->device, found))
            problem("memory of device %d is freed while a copy of it waits", current()->device);
        *link = found->next;
        device->used -= rounded(found->bytes);
        free(found->store);
        free(found);
        return leave(SUCCESS);
    }
    problem("device %d is to free an address that it did not give out", current()->device);
    return leave(INVALID_VALUE);
}

/* The bytes behind a range that lies within one allocation. */
unsigned char *resolve(int device, address at, size_t bytes) {
    struct allocation *found = world.device[device].allocations;
    for (; found; found = found->next)
        if (at >= found->at && at + bytes <= found->at + found->bytes) return found->store + (at - found->at);
    return NULL;
}

void free_everything(int number) {
    struct device *device = &world.device[number];
    while (device->allocations) {
        struct allocation *gone = device->allocations;
        device->allocations = gone->next;
        free(gone->store);
        free(gone);
    }
    device->used = 0;
    for (struct pinned **link = &world.pinned; *link;) {
        struct pinned *pinned = *link;
        if (pinned->device != number) {
            link = &pinned->next;
            continue;
        }
        *link = pinned->next;
        free(pinned->at);
        free(pinned);
    }
}

EXPORT result cuMemHostAlloc(void **at, size_t bytes, unsigned flags) {
    struct device *device;
    result code = begin_current("cuMemHostAlloc", &device);
    if (code != SUCCESS) return leave(code);
    if (bytes == 0) return leave(INVALID_VALUE);
    struct pinned *pinned = malloc(sizeof *pinned);
    *pinned = (struct pinned){
        .at = malloc(bytes),
        .bytes = bytes,
        .device = current()->device,
        .portable = flags & 1,
        .next = world.pinned,
    };
    memset(pinned->at, JUNK, bytes);
    world.pinned = pinned;
    *at = pinned->at;
    return leave(SUCCESS);
}

EXPORT result cuMemFreeHost(void *at) {
    struct device *device;
    result code = begin_current("cuMemFreeHost", &device);
    if (code != SUCCESS) return leave(code);
    for (struct pinned **link = &world.pinned; *link; link = &(*link)->next) {
        struct pinned *found = *link;
        if (found->at != at) continue;
        *link = found->next;
        free(found->at);
        free(found);
        return leave(SUCCESS);
    }
    problem("host memory is unpinned that is not pinned");
    return leave(INVALID_VALUE);
}

bool is_pinned(const void *host, size_t bytes, int device) {
    const unsigned char *at = host;
    for (struct pinned *pinned = world.pinned; pinned; pinned = pinned->next)
        if (at >= pinned->at && at + bytes <= pinned->at + pinned->bytes)
            return pinned->portable || pinned->device == device;
    return false;
}
