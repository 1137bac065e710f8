/* Memory with a name, from which a program allocates. Part of migrate.h, which programs include. */
#ifndef LIBMIGRATE_MIGRATE_ARENA_H
#define LIBMIGRATE_MIGRATE_ARENA_H

#include <libmigrate/migrate_result.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A range of memory of which the program says as a whole how it travels: rules of a policy know it
 * by its name, and migrate_advise() is given its address. It is where it was after each move, and a
 * child (fork) has a copy of it. Meant for arrays and tables; what is allocated costs some words in
 * the heap, too. */
typedef struct migrate_arena migrate_arena;

/* Makes one of `bytes` bytes, or the whole pages that have them, of zeros; `name` as in
 * migrate_arena_register(). Memory is used only as it is written. Returns MIGRATE_DONE,
 * MIGRATE_USAGE, or MIGRATE_ERROR (no memory, or no room to say so). */
MIGRATE_API int migrate_arena_create(const char* name, size_t bytes, migrate_arena** arena);
/* Takes it back, with all that was allocated in it. NULL is allowed. */
MIGRATE_API void migrate_arena_destroy(migrate_arena* arena);

/* Where it is, a page's beginning, and how large. Whoever allocates in it otherwise (containers of
 * Boost.Interprocess: migrate_interprocess.hpp) does not call migrate_arena_allocate(). */
MIGRATE_API void* migrate_arena_address(const migrate_arena* arena);
MIGRATE_API size_t migrate_arena_bytes(const migrate_arena* arena);

/* `bytes` bytes of it at a multiple of `alignment`, a power of two; 0: as malloc(3). NULL: there is
 * no room. By any thread. What they hold is not said. */
MIGRATE_API void* migrate_arena_allocate(migrate_arena* arena, size_t bytes, size_t alignment);
/* Gives them back. Whole pages of 64 KiB and more that nobody has are not sent any more. NULL is
 * allowed. Returns MIGRATE_DONE, or MIGRATE_USAGE: it was not allocated here. */
MIGRATE_API int migrate_arena_free(migrate_arena* arena, void* memory);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* LIBMIGRATE_MIGRATE_ARENA_H */
