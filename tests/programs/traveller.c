/* A program that links libmigrate: says where it is, asks to be moved, comes to points, holds.
 *
 *   traveller self HOST...        computes a step at each of the hosts, moving itself there
 *   traveller refused HOST        asks with an open network socket, and again without it
 *   traveller threads HOST...     as self, while three other threads count
 *   traveller points STEPS        comes to a point after each step
 *   traveller hold FILE           holds itself until FILE is there; then computes until FILE.end is
 *   traveller fork HOST           holds, and moves a child of it that holds nothing
 *   traveller sections SECONDS    holds itself again and again, and looks whether it is moved then
 *   traveller limit HOST SECONDS  asks for a move that cannot come true in that time, then steps
 *   traveller hooks HOW FILE [HOST]  with a device and a socket open, moves itself to HOST if there
 * is one, and comes to points until FILE is there. HOW its hooks are: "none" (it has none), "close"
 * (they close both), "keep" (neither), "veto", "hang" (until FILE.go is there), "fork" (as "close",
 * and other threads fork and end meanwhile)
 *
 * Each prints lines of `key value...`, and at its end `sum N`, which depends on the steps alone. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <libmigrate/migrate.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { kWords = 1 << 19, kThreads = 3 };

static uint64_t* words;
static atomic_bool stop;

/* One step touches all of the memory and depends on every step before. */
static void step(void) {
  for (size_t i = 0; i < kWords; ++i) {
    words[i] = words[i] * 6364136223846793005U + words[(i + 1) % kWords] + 1442695040888963407U;
  }
}

static void pause_ms(long milliseconds) {
  struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
  while (nanosleep(&time, &time) != 0) {
  }
}

static void print_place(void) {
  migrate_result* result = NULL;
  struct migrate_place place = {.size = sizeof place};
  if (migrate_here(NULL, &result) == MIGRATE_DONE && migrate_result_place(result, &place) == 0) {
    printf("place %s %s %u %s/%llx/%llx\n", place.host, place.home, place.moves,
           place.identity.origin, (unsigned long long)place.identity.serial,
           (unsigned long long)place.identity.epoch);
  } else {
    printf("nowhere %s\n", migrate_last_error());
  }
  migrate_result_free(result);
}

static int print_outcome(int status, migrate_result* result) {
  printf("status %d\n", status);
  for (size_t i = 0; i < migrate_result_refusal_count(result); ++i) {
    struct migrate_refusal refusal = {.size = sizeof refusal};
    if (migrate_result_refusal(result, i, &refusal) == 0) {
      printf("refusal %s %s\n", refusal.code, refusal.remedy);
    }
  }
  if (status != MIGRATE_DONE) {
    printf("message %s\n", migrate_result_message(result));
  }
  migrate_result_free(result);
  return status;
}

static int move_to(const char* host, double retry, double limit) {
  struct migrate_options options = {.size = sizeof options};
  options.retry_seconds = retry;
  options.time_limit_seconds = limit;
  migrate_result* result = NULL;
  const int status = migrate_self(host, &options, &result);
  return print_outcome(status, result);
}

static void travel(char** hosts) {
  print_place();
  for (; *hosts != NULL; ++hosts) {
    step();
    printf("check %d\n", migrate_check_self(*hosts, NULL, NULL));
    move_to(*hosts, 5, 0);
    print_place();
  }
}

static void ask_with_a_socket(const char* host) {
  const int open_socket = socket(AF_NETLINK, SOCK_RAW, 0);
  move_to(host, 0, 0);
  migrate_result* result = NULL;
  int status = migrate_check_self(host, NULL, &result);
  print_outcome(status, result);
  close(open_socket);
  status = migrate_check_self(host, NULL, &result);
  print_outcome(status, result);
  move_to(host, 5, 0);
  print_place();
}

static void* count(void* counted) {
  atomic_ulong* number = counted;
  while (!atomic_load(&stop)) {
    atomic_fetch_add(number, 1);
  }
  return NULL;
}

static void travel_with_threads(char** hosts) {
  static atomic_ulong counted[kThreads];
  pthread_t threads[kThreads];
  for (int i = 0; i < kThreads; ++i) {
    pthread_create(&threads[i], NULL, count, &counted[i]);
  }
  print_place();
  for (; *hosts != NULL; ++hosts) {
    step();
    move_to(*hosts, 5, 0);
    print_place();
    for (int i = 0; i < kThreads; ++i) { /* Each runs on there. */
      const unsigned long before = atomic_load(&counted[i]);
      while (atomic_load(&counted[i]) == before) {
        pause_ms(1);
      }
    }
  }
  atomic_store(&stop, 1);
  for (int i = 0; i < kThreads; ++i) {
    pthread_join(threads[i], NULL);
  }
}

static void come_to_points(int steps) {
  for (int i = 0; i < steps; ++i) {
    step();
    if (migrate_point()) {
      printf("moved after %d\n", i);
      print_place();
    }
    fflush(stdout);
    pause_ms(10);
  }
}

static void hold_until(const char* path) {
  char end[4096];
  snprintf(end, sizeof end, "%s.end", path);
  const int first = migrate_hold();
  printf("hold %d %d\n", first, migrate_hold());
  printf("ready\n");
  fflush(stdout);
  while (access(path, F_OK) != 0) {
    pause_ms(10);
  }
  const int inner = migrate_release();
  const int outer = migrate_release();
  printf("release %d %d %d\n", inner, outer, migrate_release());
  fflush(stdout);
  while (access(end, F_OK) != 0) {
    pause_ms(10);
  }
  step();
}

static void move_a_child(const char* host) {
  migrate_hold();
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    move_to(host, 5, 0);
    print_place();
    fflush(stdout);
    _exit(7);
  }
  int status = 0;
  waitpid(child, &status, 0);
  printf("child %d\n", WEXITSTATUS(status));
  const int held = migrate_release();
  printf("release %d %d\n", held, migrate_release());
}

static void use_time(struct timespec* now) {
  for (int i = 0; i < 20; ++i) {
    clock_gettime(CLOCK_MONOTONIC, now);
    sched_yield();
  }
}

/* The name of the host is another one after a move. */
static void hold_again_and_again(double seconds) {
  struct timespec start;
  struct timespec now;
  int broken = 0;
  int moved = 0;
  char last[256] = "";
  clock_gettime(CLOCK_MONOTONIC, &start);
  printf("ready\n");
  fflush(stdout);
  do {
    char before[256] = "";
    char after[256] = "";
    migrate_hold();
    gethostname(before, sizeof before - 1);
    use_time(&now);
    gethostname(after, sizeof after - 1);
    migrate_release();
    use_time(&now);
    broken += strcmp(before, after) != 0;
    moved += last[0] != '\0' && strcmp(last, before) != 0;
    memcpy(last, after, sizeof last);
  } while ((double)(now.tv_sec - start.tv_sec) + (double)(now.tv_nsec - start.tv_nsec) / 1e9 <
           seconds);
  printf("broken %d\nseen %d\n", broken, moved);
}

static int device = -1;
static int open_socket = -1;
static const char* go;

static void open_both(void) {
  device = open("/dev/kmsg", O_RDONLY);
  open_socket = socket(AF_NETLINK, SOCK_RAW, 0);
}

static void close_both(void) {
  close(device);
  close(open_socket);
}

/* Held while there is a child, with which the process is not moved. */
static pthread_mutex_t child_turn = PTHREAD_MUTEX_INITIALIZER;

static const char* before_closing(void* data) {
  (void)data;
  pthread_mutex_lock(&child_turn);
  close_both();
  printf("before close\n");
  return NULL;
}

static const char* before_keeping(void* data) {
  (void)data;
  printf("before keep\n");
  return NULL;
}

static const char* before_vetoing(void* data) {
  (void)data;
  printf("before veto\n");
  return "a phase that\nmust not be cut";
}

static const char* before_hanging(void* data) {
  (void)data;
  printf("before hang\n");
  fflush(stdout);
  while (access(go, F_OK) != 0) {
    pause_ms(10);
  }
  return NULL;
}

static void after_move(void* data) {
  (void)data;
  char name[256] = "";
  gethostname(name, sizeof name - 1);
  open_both();
  pthread_mutex_unlock(&child_turn);
  printf("after %s %d\n", name, device >= 0 && open_socket >= 0);
}

static void after_failure(const char* why, void* data) {
  (void)data;
  open_both();
  pthread_mutex_unlock(&child_turn);
  printf("failed %s\n", why);
}

static void* end_at_once(void* unused) {
  return unused;
}

/* Threads and children come and go while hooks are called. */
static void* fork_and_end(void* unused) {
  while (!atomic_load(&stop)) {
    pthread_t thread;
    pthread_mutex_lock(&child_turn);
    const pid_t child = fork();
    if (child == 0) {
      _exit(migrate_point());
    }
    int status = 0;
    waitpid(child, &status, 0);
    pthread_mutex_unlock(&child_turn);
    if (status != 0) {
      printf("child %d\n", status);
    }
    if (pthread_create(&thread, NULL, end_at_once, NULL) == 0) {
      pthread_join(thread, NULL);
    }
    pause_ms(20);
  }
  return unused;
}

static void come_with_hooks(const char* how, const char* path, const char* host) {
  static char go_path[4096];
  struct migrate_hooks first = {.size = sizeof first};
  struct migrate_hooks hooks = {.size = sizeof hooks};
  pthread_t forking;
  int number = 0;
  const int forks = strcmp(how, "fork") == 0;
  snprintf(go_path, sizeof go_path, "%s.go", path);
  go = go_path;
  first.before = before_closing;
  first.after = after_move;
  first.failed = after_failure;
  hooks.before = strcmp(how, "veto") == 0   ? before_vetoing
                 : strcmp(how, "hang") == 0 ? before_hanging
                                            : before_keeping;
  open_both();
  if (strcmp(how, "none") != 0) {
    if (strcmp(how, "keep") == 0) {
      first.before = NULL; /* The others are called for a process that nothing was done for. */
      first.after = NULL;
      first.failed = NULL;
    }
    printf("add %d", migrate_add_hooks(&first, &number));
    printf(" %d", migrate_add_hooks(&hooks, &number));
    printf(" %d\n", migrate_remove_hooks(4711));
  }
  if (forks) {
    pthread_create(&forking, NULL, fork_and_end, NULL);
  }
  printf("ready\n");
  fflush(stdout);
  if (host != NULL) {
    move_to(host, 5, 0);
  }
  while (access(path, F_OK) != 0) {
    if (migrate_point()) {
      printf("moved\n");
    } else if (migrate_last_error()[0] != '\0') {
      printf("message %s\n", migrate_last_error());
      migrate_release(); /* So that it is not said again. */
    }
    fflush(stdout);
    pause_ms(10);
  }
  if (forks) {
    atomic_store(&stop, 1);
    pthread_join(forking, NULL);
  }
  printf("open %d\n", fcntl(device, F_GETFD) >= 0 && fcntl(open_socket, F_GETFD) >= 0);
  close_both();
}

int main(int count_of_words, char** arguments) {
  const char* what = count_of_words > 1 ? arguments[1] : "";
  const char* first = count_of_words > 2 ? arguments[2] : "";
  words = calloc(kWords, sizeof *words);
  if (words == NULL) {
    return 1;
  }
  step();
  if (strcmp(what, "self") == 0) {
    travel(arguments + 2);
  } else if (strcmp(what, "refused") == 0) {
    ask_with_a_socket(first);
  } else if (strcmp(what, "threads") == 0) {
    travel_with_threads(arguments + 2);
  } else if (strcmp(what, "points") == 0) {
    migrate_point();
    printf("ready\n");
    fflush(stdout);
    come_to_points(atoi(first));
  } else if (strcmp(what, "hold") == 0) {
    hold_until(first);
  } else if (strcmp(what, "fork") == 0) {
    move_a_child(first);
  } else if (strcmp(what, "sections") == 0) {
    hold_again_and_again(atof(first));
  } else if (strcmp(what, "hooks") == 0) {
    come_with_hooks(first, arguments[3], arguments[4]);
  } else if (strcmp(what, "limit") == 0) {
    move_to(first, 60, atof(arguments[3]));
    step();
  } else {
    return 2;
  }
  uint64_t sum = 0;
  for (size_t i = 0; i < kWords; ++i) {
    sum = sum * 31 + words[i];
  }
  printf("sum %llu\nok\n", (unsigned long long)sum);
  return 42;
}
