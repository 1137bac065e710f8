/* A C11 job that links libmigrate: says whether the library changed anything of the process. */
#define _POSIX_C_SOURCE 200809L
#include <dirent.h>
#include <libmigrate/migrate.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int entries_of(const char* path) {
  DIR* folder = opendir(path);
  int count = 0;
  if (folder == NULL) {
    return -1;
  }
  while (readdir(folder) != NULL) {
    ++count;
  }
  closedir(folder);
  return count;
}

/* What is ignored may come from who started this; a handler can only be the library's. */
static int handlers(void) {
  int count = 0;
  for (int number = 1; number <= SIGRTMAX; ++number) {
    struct sigaction action;
    if (sigaction(number, NULL, &action) == 0 && action.sa_handler != SIG_DFL &&
        action.sa_handler != SIG_IGN) {
      ++count;
    }
  }
  return count;
}

/* As a header of the job may have it: a function of any linkage comes to points. */
int step(void);
inline int step(void) {
  return migrate_point();
}
int (*const same_step)(void) = migrate_point;

int main(void) {
  const int descriptors = entries_of("/proc/self/fd");
  struct migrate_options options;
  memset(&options, 0, sizeof options);
  options.size = sizeof options;
  options.socket = "/nonexistent/migrated.sock";
  const int points = step() + same_step();
  const int status = migrate_check(0, NULL, &options, NULL);
  printf("status %d: %s\n", status, migrate_strerror(status));
  printf("threads %d handlers %d descriptors %d\n", entries_of("/proc/self/task") - 2, handlers(),
         entries_of("/proc/self/fd") - descriptors);
  return strlen(migrate_last_error()) > 0 && points == 0 ? 0 : 1;
}
