/* Functions of a program that run at other hosts. Part of migrate.h, which programs include. */
#ifndef LIBMIGRATE_MIGRATE_TASK_H
#define LIBMIGRATE_MIGRATE_TASK_H

#include <libmigrate/migrate_result.h>

#ifdef __cplusplus
extern "C" {
#endif

struct migrate_options;

/* A function of this program that runs elsewhere. For one thread at a time, of the process that
 * has begun it. */
typedef struct migrate_task migrate_task;

/* Calls function(output, data) at `destination` in a copy of the caller (fork), once or not at all.
 * What the function writes to `output`, a descriptor, comes home: migrate_task_output(). Code and
 * data follow as they are touched (mode "demand" unless the options say otherwise), of files, too,
 * that the destination has not. Returns at once, MIGRATE_DONE with a task that the caller frees;
 * MIGRATE_USAGE, or MIGRATE_ERROR (no memory, no process), and no task. What became of it,
 * migrate_task_wait() says.
 *
 * In the copy there is the calling thread alone, with the memory of now; a lock that another one
 * holds is never given back there. So what the function may do is what a child of fork(2) may in a
 * program with threads: with glibc all but for locks of the program's own and of its libraries. Of
 * descriptors it has 0, 1, 2 and `output`; it has no hooks, and none of the caller's
 * migrate_hold(). What the caller has written to stdout and not flushed, it has not; what it prints
 * itself is flushed. It ends when the function returns, by _exit(2): nothing is called at exit.
 * What cannot be moved of any process (memory that is shared with the caller) refuses the task, as
 * migrate_check() would.
 *
 * The copy is a child of the caller: its end is a SIGCHLD, and a wait(2) of the program may find
 * it, with which it still counts. While there is one, the caller itself is not moved (CHILDREN). If
 * the caller ends, the function runs on until it writes. options.time_limit_seconds is of the move;
 * options.progress and wait do not count. */
MIGRATE_API int migrate_spawn(const char* destination, void (*function)(int output, void* data),
                              void* data, const struct migrate_options* options,
                              migrate_task** task, migrate_result** result);

/* Waits until the function has returned and its process has ended, for `seconds` at most; negative:
 * as long as it takes. Returns MIGRATE_DONE; MIGRATE_LOST if the function was begun and did not
 * return (the result has "exit_status", as waitpid gives it, if that is known); MIGRATE_TIMEOUT if
 * neither yet; anything else if it was not moved, and not begun: as migrate_self(), with the
 * refusals. May be called again, with the same answer. */
MIGRATE_API int migrate_task_wait(migrate_task* task, double seconds, migrate_result** result);

/* Waits until one of `count` tasks would not make migrate_task_wait() wait, and sets *index to it.
 * Returns MIGRATE_DONE, MIGRATE_TIMEOUT, or MIGRATE_USAGE (there are none). */
MIGRATE_API int migrate_task_wait_any(migrate_task* const* tasks, size_t count, double seconds,
                                      size_t* index);

/* What the function has written, once MIGRATE_DONE was returned for it: *bytes bytes, which are the
 * task's. NULL before, and if it was not done. */
MIGRATE_API const void* migrate_task_output(const migrate_task* task, size_t* bytes);

/* The child, here at home. */
MIGRATE_API pid_t migrate_task_pid(const migrate_task* task);

/* NULL is allowed. If the function has not returned, its process is killed (SIGKILL), wherever it
 * is. In a child of the process that has begun it, it is only forgotten. */
MIGRATE_API void migrate_task_free(migrate_task* task);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* LIBMIGRATE_MIGRATE_TASK_H */
