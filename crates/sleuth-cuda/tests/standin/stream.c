/* Streams, events and copies. An operation is done when somebody waits for it, and not before: who reads
 * or reuses memory without having waited sees the wrong bytes. */
#include "standin.h"

#include <stdlib.h>
#include <string.h>

static result perform(struct operation *op) {
    if (op->kind == AWAIT) return run_until(op->awaited, op->awaited_until);
    if (world.device[op->to_device].lost) return world.device[op->to_device].lost;
    if (world.device[op->from_device].lost) return world.device[op->from_device].lost;
    unsigned char *to = op->to_host ? op->to_host : resolve(op->to_device, op->to, op->bytes);
    const unsigned char *from = op->from_host ? op->from_host : resolve(op->from_device, op->from, op->bytes);
    if (op->kind == FILL) {
        if (!to) return INVALID_VALUE;
        memset(to, op->value, op->bytes);
        return SUCCESS;
    }
    if (!to || !from) {
        problem("a copy touches memory that is not allocated");
        return INVALID_VALUE;
    }
    memmove(to, from, op->bytes);
    if (op->corrupt && op->bytes) to[op->bytes / 2] ^= 0x10;
    return SUCCESS;
}

result run_until(struct stream *stream, uint64_t until) {
    while (stream->first && stream->done < until) {
        struct operation *op = stream->first;
        stream->first = op->next;
        if (!stream->first) stream->last = NULL;
        stream->done++;
        result code = perform(op);
        free(op);
        if (code != SUCCESS) return code;
    }
    return SUCCESS;
}

bool is_pending(int device, const struct allocation *allocation) {
    for (struct stream *stream = world.streams; stream; stream = stream->next)
        for (struct operation *op = stream->first; op; op = op->next) {
            bool to = !op->to_host && op->to_device == device && op->to >= allocation->at &&
                      op->to < allocation->at + allocation->bytes;
            bool from = !op->from_host && op->from_device == device && op->from >= allocation->at &&
                        op->from < allocation->at + allocation->bytes;
            if (op->kind != AWAIT && (to || from)) return true;
        }
    return false;
}

static void drop_operations(struct stream *stream) {
    while (stream->first) {
        struct operation *op = stream->first;
        stream->first = op->next;
        free(op);
    }
    stream->last = NULL;
}

void forget_streams(int device) {
    for (struct stream *stream = world.streams; stream; stream = stream->next)
        if (stream->device == device) {
            drop_operations(stream);
            stream->alive = false;
        }
    drop_operations(&world.device[device].idle);
}

EXPORT result cuStreamCreate(struct stream **stream, unsigned flags) {
    struct device *device;
    result code = begin_current("cuStreamCreate", &device);
    if (code != SUCCESS) return leave(code);
    (void)flags;
    *stream = calloc(1, sizeof **stream);
    **stream = (struct stream){.device = current()->device, .alive = true, .next = world.streams};
    world.streams = *stream;
    return leave(SUCCESS);
}

/* The stream of the current context, or the error of naming another one. */
static result find(struct stream **stream) {
    if (!*stream) *stream = &world.device[current()->device].idle;
    if (!(*stream)->alive || (*stream)->device != current()->device) {
        problem("a stream is used that is gone or another device's");
        return INVALID_HANDLE;
    }
    return SUCCESS;
}

EXPORT result cuStreamDestroy_v2(struct stream *stream) {
    struct device *device;
    result code = begin_current("cuStreamDestroy_v2", &device);
    if (code == SUCCESS) code = find(&stream);
    if (code != SUCCESS) return leave(code);
    if (stream->first) problem("a stream is destroyed before its copies were waited for");
    drop_operations(stream);
    stream->alive = false;
    return leave(SUCCESS);
}

EXPORT result cuStreamSynchronize(struct stream *stream) {
    struct device *device;
    result code = begin_current("cuStreamSynchronize", &device);
    if (code == SUCCESS) code = find(&stream);
    if (code == SUCCESS) code = run_until(stream, stream->issued);
    return leave(code);
}

EXPORT result cuCtxSynchronize(void) {
    struct device *device;
    result code = begin_current("cuCtxSynchronize", &device);
    if (code == SUCCESS) code = run_until(&device->idle, device->idle.issued);
    for (struct stream *stream = world.streams; stream && code == SUCCESS; stream = stream->next)
        if (stream->alive && stream->device == current()->device) code = run_until(stream, stream->issued);
    return leave(code);
}

static result issue(const char *call, struct stream *stream, struct operation op) {
    struct device *device;
    result code = begin_current(call, &device);
    if (code == SUCCESS) code = find(&stream);
    if (code != SUCCESS) return leave(code);
    const void *host = op.to_host ? op.to_host : op.from_host;
    int number = current()->device;
    bool pageable = host && !is_pinned(host, op.bytes, number);
    if (host) *(pageable ? &world.pageable_copies : &world.pinned_copies) += 1;
    if (op.kind == PEER) {
        if (!world.device[op.from_device].retained || !world.device[op.to_device].retained) {
            problem("a copy between devices names a context that was let go");
            return leave(CONTEXT_IS_DESTROYED);
        }
        int other = op.from_device == number ? op.to_device : op.from_device;
        if (device->withdrawn[other]) return leave(PEER_ACCESS_NOT_ENABLED);
        /* A real driver copies in stages where access is not enabled; the tests count that. */
        *(device->reads[other] ? &world.peer_direct : &world.peer_staged) += 1;
    } else {
        op.to_device = op.from_device = number;
    }
    op.corrupt = spoils();
    struct operation *added = malloc(sizeof *added);
    *added = op;
    added->next = NULL;
    if (stream->last) stream->last->next = added;
    else stream->first = added;
    stream->last = added;
    stream->issued++;
    /* A real driver is done with pageable memory when it returns. cudarc relies on that; we must not. */
    return leave(pageable && !world.strict ? run_until(stream, stream->issued) : SUCCESS);
}

EXPORT result cuMemcpyHtoDAsync_v2(address to, const void *from, size_t bytes, struct stream *stream) {
    return issue("cuMemcpyHtoDAsync_v2", stream,
                 (struct operation){.kind = UPLOAD, .to = to, .from_host = from, .bytes = bytes});
}

EXPORT result cuMemcpyDtoHAsync_v2(void *to, address from, size_t bytes, struct stream *stream) {
    return issue("cuMemcpyDtoHAsync_v2", stream,
                 (struct operation){.kind = DOWNLOAD, .to_host = to, .from = from, .bytes = bytes});
}

EXPORT result cuMemcpyDtoDAsync_v2(address to, address from, size_t bytes, struct stream *stream) {
    return issue("cuMemcpyDtoDAsync_v2", stream,
                 (struct operation){.kind = WITHIN, .to = to, .from = from, .bytes = bytes});
}

EXPORT result cuMemsetD8Async(address to, unsigned char value, size_t bytes, struct stream *stream) {
    return issue("cuMemsetD8Async", stream,
                 (struct operation){.kind = FILL, .to = to, .value = value, .bytes = bytes});
}

EXPORT result cuMemcpyPeerAsync(address to, struct context *to_context, address from,
                                struct context *from_context, size_t bytes, struct stream *stream) {
    if (!to_context || !from_context) return INVALID_CONTEXT;
    if (current() != to_context && current() != from_context) {
        problem("a copy between devices is issued in a third context");
        return INVALID_CONTEXT;
    }
    return issue("cuMemcpyPeerAsync", stream,
                 (struct operation){.kind = PEER,
                                    .to_device = to_context->device,
                                    .from_device = from_context->device,
                                    .to = to,
                                    .from = from,
                                    .bytes = bytes});
}

EXPORT result cuEventCreate(struct event **event, unsigned flags) {
    struct device *device;
    result code = begin_current("cuEventCreate", &device);
    (void)flags;
    if (code != SUCCESS) return leave(code);
    *event = calloc(1, sizeof **event);
    **event = (struct event){.alive = true, .next = world.events};
    world.events = *event;
    return leave(SUCCESS);
}

EXPORT result cuEventDestroy_v2(struct event *event) {
    struct device *device;
    result code = begin_current("cuEventDestroy_v2", &device);
    event->alive = false;
    return leave(code);
}

EXPORT result cuEventRecord(struct event *event, struct stream *stream) {
    struct device *device;
    result code = begin_current("cuEventRecord", &device);
    if (code == SUCCESS) code = find(&stream);
    if (code != SUCCESS) return leave(code);
    event->stream = stream;
    event->until = stream->issued;
    return leave(SUCCESS);
}

EXPORT result cuStreamWaitEvent(struct stream *stream, struct event *event, unsigned flags) {
    (void)flags;
    if (!event->stream) return SUCCESS;
    return issue("cuStreamWaitEvent", stream,
                 (struct operation){.kind = AWAIT, .awaited = event->stream, .awaited_until = event->until});
}

EXPORT result cuEventSynchronize(struct event *event) {
    struct device *device;
    result code = begin_current("cuEventSynchronize", &device);
    if (code == SUCCESS && event->stream) code = run_until(event->stream, event->until);
    return leave(code);
}
