/* The world, what is planned to go wrong, and what the tests ask. */
#define _DEFAULT_SOURCE
#include "standin.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct world world = {.lock = PTHREAD_MUTEX_INITIALIZER};

enum action { FAIL, LOSE, SPOIL };

static struct plan {
    char call[48];
    int device, in, victim;
    enum action action;
    result code;
} plans[64];
static int planned;

static struct counter {
    char call[48];
    uint64_t by_device[MAX_DEVICES + 1];
    unsigned delay;
} counters[64];
static int counted;

static char problems[8192];
static int problem_count;
static _Thread_local struct context *current_context;
static _Thread_local bool spoiling;

void problem(const char *format, ...) {
    char line[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    problem_count++;
    size_t used = strlen(problems);
    snprintf(problems + used, sizeof problems - used, "%s\n", line);
}

struct context *current(void) { return current_context; }

void make_current(struct context *context) { current_context = context; }

bool spoils(void) { return spoiling; }

static struct counter *counter_of(const char *call) {
    for (int i = 0; i < counted; i++)
        if (strcmp(counters[i].call, call) == 0) return &counters[i];
    if (counted == 64) abort();
    struct counter *counter = &counters[counted++];
    memset(counter, 0, sizeof *counter);
    snprintf(counter->call, sizeof counter->call, "%s", call);
    return counter;
}

static result apply_plans(const char *call, int device) {
    for (int i = 0; i < planned; i++) {
        struct plan *plan = &plans[i];
        if (strcmp(plan->call, call) != 0 || (plan->device >= 0 && plan->device != device)) continue;
        if (plan->in <= 0 || --plan->in > 0) continue;
        if (plan->action == SPOIL) {
            spoiling = true;
        } else if (plan->action == FAIL) {
            return plan->code;
        } else {
            world.device[plan->victim].lost = plan->code;
        }
    }
    return SUCCESS;
}

result begin(const char *call, int device) {
    pthread_mutex_lock(&world.lock);
    spoiling = false;
    struct counter *counter = counter_of(call);
    counter->by_device[device < 0 ? MAX_DEVICES : device]++;
    if (counter->delay) {
        unsigned delay = counter->delay;
        pthread_mutex_unlock(&world.lock);
        usleep(delay);
        pthread_mutex_lock(&world.lock);
    }
    result code = apply_plans(call, device);
    if (code == SUCCESS && device >= 0) code = world.device[device].lost;
    return code;
}

result begin_current(const char *call, struct device **device) {
    struct context *context = current_context;
    int number = context && context->alive ? context->device : -1;
    result code = begin(call, number);
    if (!world.started) {
        problem("%s before cuInit", call);
        return NOT_INITIALIZED;
    }
    if (!context) {
        problem("%s without a current context", call);
        return INVALID_CONTEXT;
    }
    if (!context->alive) {
        problem("%s in a context that was let go", call);
        return CONTEXT_IS_DESTROYED;
    }
    *device = &world.device[number];
    if (world.strict && (*device)->owned && !pthread_equal((*device)->owner, pthread_self()))
        problem("%s for device %d on a thread that is not its owner's", call, number);
    return code;
}

result leave(result code) {
    pthread_mutex_unlock(&world.lock);
    return code;
}

static void plan(const char *call, int device, int nth, enum action action, int victim, result code) {
    pthread_mutex_lock(&world.lock);
    if (planned == 64) abort();
    struct plan *added = &plans[planned++];
    *added = (struct plan){.device = device, .in = nth, .victim = victim, .action = action, .code = code};
    snprintf(added->call, sizeof added->call, "%s", call);
    pthread_mutex_unlock(&world.lock);
}

/* The nth call from now, of a device or of any (-1), fails. */
EXPORT void standin_fail(const char *call, int device, int nth, result code) {
    plan(call, device, nth, FAIL, 0, code);
}

/* At the nth call from now a device is lost: it and all later calls for it return the code. */
EXPORT void standin_lose_at(const char *call, int device, int nth, int victim, result code) {
    plan(call, device, nth, LOSE, victim, code);
}

/* The nth copy from now arrives with one wrong bit. */
EXPORT void standin_spoil(const char *call, int device, int nth) {
    plan(call, device, nth, SPOIL, 0, 0);
}

EXPORT void standin_delay(const char *call, unsigned microseconds) {
    pthread_mutex_lock(&world.lock);
    counter_of(call)->delay = microseconds;
    pthread_mutex_unlock(&world.lock);
}

EXPORT void standin_lose(int device, result code) {
    pthread_mutex_lock(&world.lock);
    world.device[device].lost = code;
    pthread_mutex_unlock(&world.lock);
}

/* Calls that a device (-1: none) was asked for. */
EXPORT uint64_t standin_calls(const char *call, int device) {
    pthread_mutex_lock(&world.lock);
    uint64_t calls = counter_of(call)->by_device[device < 0 ? MAX_DEVICES : device];
    pthread_mutex_unlock(&world.lock);
    return calls;
}

/* A world of devices that all reach each other. */
EXPORT void standin_reset(size_t devices, size_t bytes) {
    pthread_mutex_lock(&world.lock);
    for (int i = 0; i < MAX_DEVICES; i++) {
        forget_streams(i);
        free_everything(i);
    }
    planned = counted = problem_count = 0;
    problems[0] = 0;
    world.driver = 13000;
    world.init = SUCCESS;
    world.started = false;
    world.strict = true;
    world.devices = (int)devices;
    world.peer_direct = world.peer_staged = world.pinned_copies = world.pageable_copies = 0;
    for (int i = 0; i < MAX_DEVICES; i++) {
        struct device *device = &world.device[i];
        memset(device, 0, sizeof *device);
        snprintf(device->name, sizeof device->name, "Stand-in %d", i);
        device->major = 9;
        device->ecc = 1;
        device->limit = bytes;
        device->next_address = ((address)(i + 1) << 44) + 512;
        device->idle = (struct stream){.device = i, .alive = true};
        for (int j = 0; j < MAX_DEVICES; j++) device->can_read[j] = i != j;
    }
    pthread_mutex_unlock(&world.lock);
}

EXPORT void standin_driver(int version, result init) {
    world.driver = version;
    world.init = init;
}

EXPORT void standin_unopened(int device, result code) { world.device[device].unopened = code; }

EXPORT void standin_capability(int device, int major, int minor) {
    world.device[device].major = major;
    world.device[device].minor = minor;
}

/* Whether all calls for a device must come from the thread that made its context. */
EXPORT void standin_strict(int strict) { world.strict = strict; }

/* Whether one device can read another's memory. */
EXPORT void standin_can_read(int reader, int owner, int can) {
    world.device[reader].can_read[owner] = can;
}

/* Takes access away that was enabled. */
EXPORT void standin_withdraw(int reader, int owner) {
    pthread_mutex_lock(&world.lock);
    world.device[reader].withdrawn[owner] = true;
    world.device[reader].reads[owner] = false;
    pthread_mutex_unlock(&world.lock);
}

/* Memory that another process has taken. */
EXPORT void standin_foreign(int device, size_t bytes) {
    pthread_mutex_lock(&world.lock);
    world.device[device].foreign = bytes;
    pthread_mutex_unlock(&world.lock);
}

EXPORT uint64_t standin_used(int device) {
    pthread_mutex_lock(&world.lock);
    uint64_t used = world.device[device].used;
    pthread_mutex_unlock(&world.lock);
    return used;
}

EXPORT void standin_copies(uint64_t *direct, uint64_t *staged, uint64_t *pinned, uint64_t *pageable) {
    pthread_mutex_lock(&world.lock);
    *direct = world.peer_direct;
    *staged = world.peer_staged;
    *pinned = world.pinned_copies;
    *pageable = world.pageable_copies;
    pthread_mutex_unlock(&world.lock);
}

/* Rules that were broken and things that are still there, as lines. */
EXPORT int standin_problems(char *text, size_t bytes) {
    pthread_mutex_lock(&world.lock);
    for (int i = 0; i < MAX_DEVICES; i++) {
        struct device *device = &world.device[i];
        if (device->retained) problem("the context of device %d is retained %d times", i, device->retained);
        if (device->used) problem("device %d still has %zu bytes", i, device->used);
    }
    for (struct pinned *pinned = world.pinned; pinned; pinned = pinned->next)
        problem("%zu bytes are still pinned", pinned->bytes);
    snprintf(text, bytes, "%s", problems);
    int count = problem_count;
    pthread_mutex_unlock(&world.lock);
    return count;
}
