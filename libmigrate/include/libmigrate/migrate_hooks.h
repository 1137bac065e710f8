/* What a program does before it is moved and after that. Part of migrate.h, which programs include.
 */
#ifndef LIBMIGRATE_MIGRATE_HOOKS_H
#define LIBMIGRATE_MIGRATE_HOOKS_H

#include <libmigrate/migrate_result.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Hooks of a program, for what cannot travel: sockets, devices, contexts of a processor for
 * graphics. Each may be NULL. `data` is given to each of them. They are called by the thread that
 * calls migrate_self() or migrate_point(), inside of that call; the others run on meanwhile. They
 * may call whatever a program may; of this library migrate_self() fails in them, and
 * migrate_point() does nothing. They return (no longjmp). */
struct migrate_hooks {
  size_t size;
  /* A move is to begin: closes what cannot travel, and returns NULL; or why it may not be now, a
   * text that is valid until the function is called again, of which others see 255 bytes. What was
   * not closed is refused as without hooks. */
  const char* (*before)(void* data);
  /* The process runs at the destination: opens anew what `before` has closed. */
  void (*after)(void* data);
  /* The move came to nothing after `before` had agreed: the same where it was. `why` is valid
   * during the call. */
  void (*failed)(const char* why, void* data);
  void* data;
};

/* Registers hooks, and gives them a number. Before a move they are called in the reverse of the
 * order in which they were registered, after it in that order; 32 sets at most. From then on the
 * program is moved only where migrate_point() or migrate_self() is called: whoever asks from
 * outside waits for that as with `migratectl move --at-point`, and is refused in the end:
 * POINT_NOT_REACHED, HOOK_NOT_DONE (a hook has not returned), HOOK_VETO (with its reason). The
 * program runs on then, and a hook that returns later hears of it. Those that migrate_self() calls,
 * nobody hurries. A child (fork) has the same hooks, and is at no move. A thread that ends in a
 * hook (pthread_cancel) ends the move. Returns MIGRATE_DONE, MIGRATE_USAGE or MIGRATE_ERROR (no
 * room: there are none). */
MIGRATE_API int migrate_add_hooks(const struct migrate_hooks* hooks, int* number);
/* Takes them back. Waits until no other thread is in a hook; from then on none of these is called,
 * not even `after` if `before` was. MIGRATE_USAGE: there are none of this number. */
MIGRATE_API int migrate_remove_hooks(int number);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* LIBMIGRATE_MIGRATE_HOOKS_H */
