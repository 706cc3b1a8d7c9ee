/* A stand-in for libcuda, for tests: devices are memory of the host, copies move real bytes, streams do
 * nothing until somebody waits for them, and every rule that the tests rely on is enforced. What breaks a
 * rule is an error for the caller and a line in standin_problems(). */
#ifndef STANDIN_H
#define STANDIN_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))
#define MAX_DEVICES 8

typedef uint32_t result;
typedef uint64_t address;

enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    PEER_ACCESS_UNSUPPORTED = 217,
    INVALID_HANDLE = 400,
    PEER_ACCESS_ALREADY_ENABLED = 704,
    PEER_ACCESS_NOT_ENABLED = 705,
    CONTEXT_IS_DESTROYED = 709,
};

struct context {
    int device;
    bool alive;
};

struct allocation {
    address at;
    size_t bytes;
    unsigned char *store;
    struct allocation *next;
};

struct pinned {
    unsigned char *at;
    size_t bytes;
    int device;
    bool portable;
    struct pinned *next;
};

enum kind { UPLOAD, DOWNLOAD, WITHIN, PEER, FILL, AWAIT };

struct stream;

struct operation {
    enum kind kind;
    int to_device, from_device;
    address to, from;
    unsigned char *to_host;
    const unsigned char *from_host;
    size_t bytes;
    unsigned char value;
    bool corrupt;
    struct stream *awaited;
    uint64_t awaited_until;
    struct operation *next;
};

struct stream {
    int device;
    bool alive;
    uint64_t issued, done;
    struct operation *first, *last;
    struct stream *next;
};

struct event {
    bool alive;
    struct stream *stream;
    uint64_t until;
    struct event *next;
};

struct device {
    char name[64];
    int major, minor, ecc;
    size_t limit, used, foreign;
    address next_address;
    struct allocation *allocations;
    struct context *context;
    struct stream idle; /* the NULL stream */
    int retained;
    result lost;     /* returned by every call once set */
    result unopened; /* returned by the retain of the context */
    bool can_read[MAX_DEVICES], reads[MAX_DEVICES], withdrawn[MAX_DEVICES];
    bool owned;
    pthread_t owner;
};

struct world {
    pthread_mutex_t lock;
    int driver;
    result init;
    bool started, strict;
    int devices;
    struct device device[MAX_DEVICES];
    struct pinned *pinned;
    struct stream *streams;
    struct event *events;
    uint64_t peer_direct, peer_staged, pinned_copies, pageable_copies;
};

extern struct world world;

/* state.c */
void problem(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Takes the lock, counts the call, applies what was planned for it. Every begin ends in leave(). */
result begin(const char *call, int device);
result begin_current(const char *call, struct device **device);
result leave(result code);
/* Whether the call that was begun is to spoil its bytes. */
bool spoils(void);
struct context *current(void);
void make_current(struct context *context);

/* memory.c */
unsigned char *resolve(int device, address at, size_t bytes);
void free_everything(int device);
bool is_pinned(const void *host, size_t bytes, int device);

/* stream.c */
result run_until(struct stream *stream, uint64_t until);
bool is_pending(int device, const struct allocation *allocation);
void forget_streams(int device);

#endif
