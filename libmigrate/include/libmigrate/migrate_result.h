/* What calls of libmigrate.so come to. Part of migrate.h, which programs include. */
#ifndef LIBMIGRATE_MIGRATE_RESULT_H
#define LIBMIGRATE_MIGRATE_RESULT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#if defined(__GNUC__)
#define MIGRATE_API __attribute__((visibility("default")))
#else
#define MIGRATE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* What a call came to; migratectl ends with the same numbers. */
enum migrate_status {
  MIGRATE_DONE = 0,    /* Done; check: the process can be moved. */
  MIGRATE_ERROR = 1,   /* No daemon, no such process, no permission, connection lost. */
  MIGRATE_USAGE = 2,   /* An argument cannot be right; nothing was tried. */
  MIGRATE_REFUSED = 3, /* A rule forbids it; the process runs on where it was. See the refusals. */
  MIGRATE_FAILED = 4,  /* The move failed and the process runs on where it was. */
  MIGRATE_LOST = 5,    /* The move failed after the process had been handed over. */
  MIGRATE_TIMEOUT = 6  /* The time limit of the call came first; see the function. */
};

/* What a status means, in English; a static string. */
MIGRATE_API const char* migrate_strerror(int status);

/* Every function that takes a `result` sets *result (unless result is NULL) to one
 * that the caller frees, whatever the function returns; NULL only if there is no memory. */

typedef struct migrate_result migrate_result;

MIGRATE_API void migrate_result_free(migrate_result* result); /* NULL is allowed. */
/* What the call returned. MIGRATE_ERROR for NULL, here and below as if it were an empty result. */
MIGRATE_API int migrate_result_status(const migrate_result* result);
/* Why it is not MIGRATE_DONE: what was tried, on what, what the system said, what to do. Else "".
 */
MIGRATE_API const char* migrate_result_message(const migrate_result* result);
/* All of it as a JSON object, which is what `migratectl --json` prints. */
MIGRATE_API const char* migrate_result_json(const migrate_result* result);
/* A member of that object by its name, "outer.inner" inside an object: a text ("" if there is none)
 * or a number (returns 0, or -1 if there is none). Such as "destination", "freeze_us",
 * "phases_us.restore", "wire_bytes", "exit_status" (as waitpid gives it). */
MIGRATE_API const char* migrate_result_text(const migrate_result* result, const char* name);
MIGRATE_API int migrate_result_number(const migrate_result* result, const char* name,
                                      double* number);

/* A reason against a move. The codes are those of `migratectl check`. */
struct migrate_refusal {
  size_t size;
  const char* code;   /* Such as "SOCKET". */
  const char* object; /* What it is about, such as "descriptor 3 -> socket:[17]". */
  const char* reason;
  const char* remedy; /* What to do. */
};
MIGRATE_API size_t migrate_result_refusal_count(const migrate_result* result);
/* Fills in *refusal; returns -1 if there is none of that index or its size cannot be right. */
MIGRATE_API int migrate_result_refusal(const migrate_result* result, size_t index,
                                       struct migrate_refusal* refusal);

/* Which process it is, wherever it runs, for as long as it lives; no other one, of any host, at any
 * time, has the same three. (A pid alone is a number of one host.) */
struct migrate_identity {
  const char* origin; /* The name of the host where it was started. */
  uint64_t serial;    /* Among those that were started there, */
  uint64_t epoch;     /* since that host's boot, which this names. */
};

/* Where the caller is. */
struct migrate_place {
  size_t size;
  const char* host;    /* The name of the host where it runs, */
  const char* address; /* and how other hosts reach its daemon. */
  const char* home;    /* The same of the host where it was started: there its pid is. */
  unsigned moves;      /* That it has made. */
  struct migrate_identity identity;
  uint64_t owed_pages; /* That have not followed it yet. */
};
MIGRATE_API int migrate_result_place(const migrate_result* result, struct migrate_place* place);

/* A process that came to this host or went away from it, as this host knows it. */
struct migrate_process {
  size_t size;
  const char* id;    /* The same on every host; see `migratectl ps`. */
  pid_t pid;         /* On this host. */
  const char* role;  /* "home" (it was started here) or "resident" (it came here). */
  const char* state; /* "moving", "running-here", "away", "done", "exited", "failed", "lost" or
                        "children-left". */
  const char* where; /* The host where it is. */
  const char* home;
  const char* command;
  struct migrate_identity identity;
  uint64_t owed_pages; /* To it; UINT64_MAX: that is not known yet. */
  int exit_status;     /* As waitpid gives it; -1 while it lives. */
};
MIGRATE_API size_t migrate_result_process_count(const migrate_result* result);
MIGRATE_API int migrate_result_process(const migrate_result* result, size_t index,
                                       struct migrate_process* process);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* LIBMIGRATE_MIGRATE_RESULT_H */
