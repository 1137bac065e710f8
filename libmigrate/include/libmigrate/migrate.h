/* libmigrate: move running processes between hosts. The C interface of libmigrate.so.
 *
 *   migrate_result* result = NULL;
 *   if (migrate_self("hostB", NULL, &result) != MIGRATE_DONE) {     // DONE: from here on, at hostB
 *     fprintf(stderr, "%s\n", migrate_result_message(result));
 *   }
 *   migrate_result_free(result);
 *
 * Functions may be called by any thread at any time. Those that take options talk to the daemon of
 * the host where the caller runs (`migrated`), block until it has answered, and leave no descriptor
 * open. The library starts no thread, handles no signal, prints nothing and never ends the program;
 * it depends on nothing but the C++ runtime. In programs that never call it, it does nothing.
 *
 * Structs begin with their size, which the caller sets, so that later versions may add members:
 *
 *   struct migrate_options options = {.size = sizeof options};
 *
 * Strings given are borrowed for the call; those in structs that a result fills in are the
 * result's and are never NULL.
 */
#ifndef LIBMIGRATE_MIGRATE_H
#define LIBMIGRATE_MIGRATE_H

#include <libmigrate/migrate_advice.h>
#include <libmigrate/migrate_arena.h>
#include <libmigrate/migrate_hooks.h>
#include <libmigrate/migrate_result.h>
#include <libmigrate/migrate_task.h>
#include <libmigrate/migrate_watch.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MIGRATE_VERSION_MAJOR 0
#define MIGRATE_VERSION_MINOR 1
#define MIGRATE_VERSION_PATCH 0
#define MIGRATE_VERSION_NUMBER \
  (MIGRATE_VERSION_MAJOR * 10000 + MIGRATE_VERSION_MINOR * 100 + MIGRATE_VERSION_PATCH)
#define MIGRATE_DEFAULT_SOCKET "/run/migrate/migrated.sock"

/* MIGRATE_VERSION_NUMBER of the library that runs, which may be later than that of this header. */
MIGRATE_API int migrate_version(void);

/* How far a move is, for migrate_options.progress. Sizes count only while pages follow. */
struct migrate_progress {
  size_t size;
  const char* phase; /* "inspect", "offer", "freeze", "run" or "pages". Valid during the call. */
  uint64_t arrived_pages;
  uint64_t owed_pages;
  uint64_t wire_bytes;
  double bytes_per_second;
};

/* How to do it; NULL stands for nothing but zeros, each of which is the default. */
struct migrate_options {
  size_t size;
  /* Daemon's socket, the same on every host: $MIGRATE_SOCKET, else MIGRATE_DEFAULT_SOCKET. */
  const char* socket;
  const char* mode;     /* "lazy" (the default), "demand", "eager", "precopy", "hybrid", "auto" */
  const char* wait;     /* What a move waits for: "resumed" (the default), "done", "exit". */
  double retry_seconds; /* Try that long while the reasons against the move are transient. */
  double time_limit_seconds; /* Of the call; 0: as long as it takes. */
  /* Called now and then while another process is moved, by the calling thread. */
  void (*progress)(const struct migrate_progress* progress, void* data);
  void* progress_data;
  const char* wish;    /* Mode "auto": best in "stop" (the default), "exposure" or "bytes". */
  const char* network; /* From where it connects to others then: "home" (the default), "place". */
};

/* ---- Where and what ---- */

/* Where the caller is and what it is called: migrate_result_place(). */
MIGRATE_API int migrate_here(const struct migrate_options* options, migrate_result** result);

/* Whether process `pid` could be moved to `destination`: "HOST" or "HOST:PORT"; NULL applies only
 * the rules of its host. It is not stopped. Returns MIGRATE_DONE, MIGRATE_REFUSED (see the
 * refusals), MIGRATE_USAGE, MIGRATE_ERROR or MIGRATE_TIMEOUT. */
MIGRATE_API int migrate_check(pid_t pid, const char* destination,
                              const struct migrate_options* options, migrate_result** result);
/* The same of the caller. */
MIGRATE_API int migrate_check_self(const char* destination, const struct migrate_options* options,
                                   migrate_result** result);

/* The processes that this host knows, those that are over only if `all` is not 0; or one of them.
 * `process` is a pid of this host in decimal, an id, or the beginning of one, or a global name. */
MIGRATE_API int migrate_list(int all, const struct migrate_options* options,
                             migrate_result** result);
MIGRATE_API int migrate_state(const char* process, const struct migrate_options* options,
                              migrate_result** result);

/* Waits until the source of the last move of `process` owes nothing (`condition` "done", or NULL)
 * or the process has ended ("exit": "exit_status" is then in the result). Returns MIGRATE_DONE,
 * MIGRATE_LOST (it was lost with a host), MIGRATE_FAILED (it never moved), MIGRATE_TIMEOUT (neither
 * yet), MIGRATE_USAGE or MIGRATE_ERROR. */
MIGRATE_API int migrate_wait(const char* process, const char* condition,
                             const struct migrate_options* options, migrate_result** result);

/* ---- Ask ---- */

/* Moves process `pid`, not the caller, to `destination`. MIGRATE_TIMEOUT: it may move yet.
 * Meanwhile the caller has a connection open, with which it is not moved itself; so has
 * migrate_wait(). */
MIGRATE_API int migrate_move(pid_t pid, const char* destination,
                             const struct migrate_options* options, migrate_result** result);

/* Copies process `pid`, not the caller, which runs on, and runs `count` copies of it at the
 * `destinations`, one after the other, over and over (0: one at each); the mode is that of
 * `options`. A copy goes on as a child of fork(2) would: with the one thread that the process must
 * have, with its descriptors, and with a pid of its own, at this host, where init is its parent.
 * Those that run there are the processes of the result. One that cannot has ended: then the status
 * is not MIGRATE_DONE, while others may run. To fork where a program wants, see migrate_spawn(). */
MIGRATE_API int migrate_fork(pid_t pid, const char* const* destinations, size_t destination_count,
                             size_t count, const struct migrate_options* options,
                             migrate_result** result);

/* Moves the caller with all its threads: those that do not call run on but for the stop. Returns
 * MIGRATE_DONE at `destination`; anything else where it was, to run on. Once it has returned
 * anything else it is not moved for this any more, whatever becomes of the daemon; a daemon that
 * dies before it has moved the caller is asked again. options.wait does not count.
 * One thread at a time: MIGRATE_ERROR while another one asks. */
MIGRATE_API int migrate_self(const char* destination, const struct migrate_options* options,
                             migrate_result** result);

/* A point at which the caller may be moved: if somebody asked for that (`migratectl move
 * --at-point`), waits until it is moved or that came to nothing. Else it reads two words, without a
 * call in C and C++. The first call of a program says that it has points.
 * Returns 1 where it was moved, else 0. If a move that it waited for came to nothing,
 * migrate_last_error() says why from then on. */
MIGRATE_API int migrate_point(void);

#if defined(__GNUC__)
/* Of migrate_point() alone: the library's word, not 0 where there is something to do. */
extern MIGRATE_API const uint32_t* migrate_point_word;

/* Never compiled by itself, so that inline functions of any linkage may come to points. */
extern __inline __attribute__((__gnu_inline__, __always_inline__)) int migrate_point_if_asked(
    void) {
  const uint32_t* const word = __atomic_load_n(&migrate_point_word, __ATOMIC_ACQUIRE);
  return __atomic_load_n(word, __ATOMIC_RELAXED) == 0 ? 0 : migrate_point();
}
#define migrate_point() migrate_point_if_asked()
#endif

/* From migrate_hold() until as many calls of migrate_release() the process is not moved: a move
 * waits for that, up to its deadline (`migratectl move --retry`), and is refused as HELD then. By
 * any threads; a child begins without. Return MIGRATE_DONE, MIGRATE_USAGE (nothing is held), or
 * MIGRATE_ERROR (no memory: it is not held). */
MIGRATE_API int migrate_hold(void);
MIGRATE_API int migrate_release(void);

/* The message of the calling thread's last call that has one. Valid until its next call. */
MIGRATE_API const char* migrate_last_error(void);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* LIBMIGRATE_MIGRATE_H */
