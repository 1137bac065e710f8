/* What a program says of its memory, for when it is moved. Part of migrate.h, which programs
 * include. */
#ifndef LIBMIGRATE_MIGRATE_ADVICE_H
#define LIBMIGRATE_MIGRATE_ADVICE_H

#include <libmigrate/migrate_result.h>

#ifdef __cplusplus
extern "C" {
#endif

enum migrate_advice {
  MIGRATE_ADVICE_NORMAL = 0,  /* As the mode of the move says. */
  MIGRATE_ADVICE_EAGER = 1,   /* Sent before all else, in mode demand, too. */
  MIGRATE_ADVICE_LAZY = 2,    /* Sent when it is touched: a rare table, a log. */
  MIGRATE_ADVICE_DISCARD = 3, /* Not sent: zeros at the destination. Scratch memory, a cache. */
  MIGRATE_ADVICE_LOCAL = 4,   /* Of a file: never sent, but mapped from the destination's own, which
                                 must be the same. A library for its processor, a large table. */
  /* How it is walked through: what is asked for ahead of what is touched. By itself a destination
   * goes by what each thread has touched before; in mode demand it asks for nothing ahead. */
  MIGRATE_ADVICE_SEQUENTIAL = 5, /* The next 64 pages at once, in mode demand, too. */
  MIGRATE_ADVICE_RANDOM = 6,     /* Nothing. */
  MIGRATE_ADVICE_HOT_FIRST = 7,  /* Of what the mode sends unasked this comes first, after what is
                                    EAGER; in mode demand it comes when it is touched. */
};

/* Says how the pages of `bytes` bytes at `address` are to follow in each move from now on, whatever
 * is mapped there by then; the last word on an address counts. Pages of which the range has a part
 * are meant as a whole, but those that are discarded lie wholly inside. Only private anonymous
 * memory is discarded: the heap, stacks, mmap(2) with MAP_ANONYMOUS. If a move comes to nothing,
 * all of it is still there. A lazy page is sent at once where all memory is (modes eager and
 * precopy, a deadline, a further move); until then its source must be up. Rules of a policy go
 * before eager, lazy and local.
 *
 * It is advice, of 1024 ranges at most, adjoining ones as one. A child (fork) has it, too. Returns
 * MIGRATE_DONE, MIGRATE_USAGE (no such advice, or no address), or MIGRATE_ERROR (no room: nothing
 * has changed). */
MIGRATE_API int migrate_advise(void* address, size_t bytes, int advice);

/* Gives the pages of `bytes` bytes at `address` a name by which rules of a policy know them
 * (kind = "arena"): 1 to 43 printable ASCII characters, no two with the same. Returns as
 * migrate_advise(); MIGRATE_USAGE also where the name is taken. */
MIGRATE_API int migrate_arena_register(const char* name, void* address, size_t bytes);
/* Takes it back. MIGRATE_USAGE: there is none of this name. */
MIGRATE_API int migrate_arena_unregister(const char* name);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* LIBMIGRATE_MIGRATE_ADVICE_H */
