/* The driver, devices, contexts and peer access. */
#include "standin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

EXPORT result cuDriverGetVersion(int *version) {
    result code = begin("cuDriverGetVersion", -1);
    *version = world.driver;
    return leave(code);
}

EXPORT result cuInit(unsigned flags) {
    result code = begin("cuInit", -1);
    if (code == SUCCESS) code = flags ? INVALID_VALUE : world.init;
    if (code == SUCCESS && world.devices == 0) code = NO_DEVICE;
    world.started = code == SUCCESS;
    return leave(code);
}

EXPORT result cuGetErrorName(result code, const char **name) {
    (void)code;
    *name = "a code of the stand-in";
    return SUCCESS;
}

EXPORT result cuGetErrorString(result code, const char **text) { return cuGetErrorName(code, text); }

/* As begin, for calls that name a device and need no context. A lost device answers these. */
static result ask(const char *call, int device) {
    result code = begin(call, -1);
    if (code != SUCCESS) return code;
    if (!world.started) {
        problem("%s before cuInit", call);
        return NOT_INITIALIZED;
    }
    return device < 0 || device >= world.devices ? INVALID_DEVICE : SUCCESS;
}

EXPORT result cuDeviceGetCount(int *count) {
    result code = ask("cuDeviceGetCount", 0);
    *count = world.devices;
    return leave(code);
}

EXPORT result cuDeviceGet(int *device, int ordinal) {
    result code = ask("cuDeviceGet", ordinal);
    *device = ordinal;
    return leave(code);
}

EXPORT result cuDeviceGetName(char *name, int bytes, int device) {
    result code = ask("cuDeviceGetName", device);
    if (code == SUCCESS) snprintf(name, (size_t)bytes, "%s", world.device[device].name);
    return leave(code);
}

EXPORT result cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
    result code = ask("cuDeviceGetUuid_v2", device);
    for (int i = 0; i < 16; i++) uuid[i] = (unsigned char)(i * 16 + device);
    return leave(code);
}

EXPORT result cuDeviceGetPCIBusId(char *text, int bytes, int device) {
    result code = ask("cuDeviceGetPCIBusId", device);
    if (code == SUCCESS) snprintf(text, (size_t)bytes, "0000:%02X:00.0", 0x10 + device);
    return leave(code);
}

EXPORT result cuDeviceTotalMem_v2(size_t *bytes, int device) {
    result code = ask("cuDeviceTotalMem_v2", device);
    if (code == SUCCESS) *bytes = world.device[device].limit;
    return leave(code);
}

EXPORT result cuDeviceGetAttribute(int *value, int attribute, int device) {
    result code = ask("cuDeviceGetAttribute", device);
    if (code == SUCCESS) {
        switch (attribute) {
        case 32: *value = world.device[device].ecc; break;
        case 75: *value = world.device[device].major; break;
        case 76: *value = world.device[device].minor; break;
        default: *value = 0; /* no memory pools, among others */
        }
    }
    return leave(code);
}

EXPORT result cuDeviceCanAccessPeer(int *can, int device, int peer) {
    result code = ask("cuDeviceCanAccessPeer", device);
    if (code == SUCCESS && (peer < 0 || peer >= world.devices)) code = INVALID_DEVICE;
    if (code == SUCCESS) *can = world.device[device].can_read[peer];
    return leave(code);
}

EXPORT result cuDevicePrimaryCtxRetain(struct context **context, int number) {
    result code = ask("cuDevicePrimaryCtxRetain", number);
    if (code != SUCCESS) return leave(code);
    struct device *device = &world.device[number];
    if (device->unopened) return leave(device->unopened);
    if (device->lost) return leave(device->lost);
    if (device->retained == 0) {
        /* Never given back, so that a handle that was let go is known as such. */
        device->context = malloc(sizeof *device->context);
        *device->context = (struct context){.device = number, .alive = true};
        device->owner = pthread_self();
        device->owned = true;
    } else if (world.strict && !pthread_equal(device->owner, pthread_self())) {
        problem("device %d is retained on a thread that is not its owner's", number);
    }
    device->retained++;
    *context = device->context;
    return leave(SUCCESS);
}

static void report_left(int number) {
    size_t used = world.device[number].used;
    if (used) problem("the context of device %d is let go with %zu bytes", number, used);
    for (struct pinned *pinned = world.pinned; pinned; pinned = pinned->next)
        if (pinned->device == number)
            problem("the context of device %d is let go with %zu pinned bytes", number, pinned->bytes);
    for (struct stream *stream = world.streams; stream; stream = stream->next)
        if (stream->alive && stream->device == number)
            problem("the context of device %d is let go with a stream", number);
}

EXPORT result cuDevicePrimaryCtxRelease_v2(int number) {
    result code = ask("cuDevicePrimaryCtxRelease_v2", number);
    if (code != SUCCESS) return leave(code);
    struct device *device = &world.device[number];
    if (device->retained == 0) {
        problem("the context of device %d is released once too often", number);
        return leave(INVALID_CONTEXT);
    }
    if (world.strict && !pthread_equal(device->owner, pthread_self()))
        problem("device %d is released on a thread that is not its owner's", number);
    if (--device->retained == 0) {
        /* What a lost device could not give back goes with its context, as it does on a real one. */
        if (!device->lost) report_left(number);
        device->context->alive = false;
        device->owned = false;
        forget_streams(number);
        free_everything(number);
        for (int i = 0; i < MAX_DEVICES; i++) device->reads[i] = world.device[i].reads[number] = false;
    }
    return leave(device->lost);
}

EXPORT result cuCtxSetCurrent(struct context *context) {
    result code = begin("cuCtxSetCurrent", -1);
    if (code == SUCCESS && context && !context->alive) {
        problem("a context that was let go is made current");
        return leave(CONTEXT_IS_DESTROYED);
    }
    make_current(context);
    return leave(code);
}

EXPORT result cuCtxGetCurrent(struct context **context) {
    *context = current();
    return SUCCESS;
}

EXPORT result cuCtxEnablePeerAccess(struct context *peer, unsigned flags) {
    struct device *device;
    result code = begin_current("cuCtxEnablePeerAccess", &device);
    if (code != SUCCESS) return leave(code);
    if (flags) return leave(INVALID_VALUE);
    if (peer && !peer->alive) problem("access to a context is enabled that was let go");
    if (!peer || !peer->alive || peer == current()) return leave(INVALID_CONTEXT);
    if (!device->can_read[peer->device] || device->withdrawn[peer->device])
        return leave(PEER_ACCESS_UNSUPPORTED);
    if (device->reads[peer->device]) return leave(PEER_ACCESS_ALREADY_ENABLED);
    device->reads[peer->device] = true;
    return leave(SUCCESS);
}

EXPORT result cuCtxDisablePeerAccess(struct context *peer) {
    struct device *device;
    result code = begin_current("cuCtxDisablePeerAccess", &device);
    if (code != SUCCESS) return leave(code);
    if (!peer || !peer->alive) return leave(INVALID_CONTEXT);
    if (!device->reads[peer->device]) return leave(PEER_ACCESS_NOT_ENABLED);
    device->reads[peer->device] = false;
    return leave(SUCCESS);
}
