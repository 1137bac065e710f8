/* Jacobi relaxation of a square plate with OpenMP: a job that travels.
 *
 *   stencil SIZE STEPS              comes to a point after each step: `migratectl move --at-point`
 *                                   moves it there, `migratectl move` wherever it is
 *   stencil SIZE STEPS HOST...      moves itself from host to host as well, after equal shares of
 *                                   its steps
 *
 * Prints where it was, and at its end a checksum: the same, bit for bit, wherever it ran. */
#include <libmigrate/migrate.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_place(int step) {
  migrate_result* result = NULL;
  struct migrate_place place = {.size = sizeof place};
  if (migrate_here(NULL, &result) == MIGRATE_DONE && migrate_result_place(result, &place) == 0) {
    printf("step %d at %s after %u moves\n", step, place.host, place.moves);
  } else {
    printf("step %d: %s\n", step, migrate_last_error());
  }
  fflush(stdout);
  migrate_result_free(result);
}

/* A job that cannot move says why, and computes on where it is. */
static void go_to(const char* host) {
  struct migrate_options options = {.size = sizeof options, .retry_seconds = 5};
  migrate_result* result = NULL;
  if (migrate_self(host, &options, &result) != MIGRATE_DONE) {
    printf("stays: %s\n", migrate_result_message(result));
    for (size_t i = 0; i < migrate_result_refusal_count(result); ++i) {
      struct migrate_refusal refusal = {.size = sizeof refusal};
      migrate_result_refusal(result, i, &refusal);
      printf("  %s: %s\n", refusal.code, refusal.remedy);
    }
  }
  migrate_result_free(result);
}

static void relax(const double* from, double* to, int size) {
#pragma omp parallel for schedule(static)
  for (int row = 1; row < size - 1; ++row) {
    for (int column = 1; column < size - 1; ++column) {
      const double* at = from + (size_t)row * size + column;
      to[(size_t)row * size + column] = (at[-size] + at[size] + at[-1] + at[1]) / 4;
    }
  }
}

/* The plate is read and written by this process only, so that a section in which it may not be
 * moved is not needed; one that writes a checkpoint to a local disk would be one. */
static void save(const double* plate, int size, const char* path) {
  migrate_hold();
  FILE* file = fopen(path, "wb");
  if (file != NULL) {
    fwrite(plate, sizeof *plate, (size_t)size * size, file);
    fclose(file);
  }
  migrate_release();
}

int main(int count, char** words) {
  const int size = count > 1 ? atoi(words[1]) : 0;
  const int steps = count > 2 ? atoi(words[2]) : 0;
  const int hosts = count > 3 ? count - 3 : 0;
  double* plate = size > 2 ? calloc((size_t)size * size, sizeof *plate) : NULL;
  double* next = size > 2 ? calloc((size_t)size * size, sizeof *next) : NULL;
  if (plate == NULL || next == NULL || steps < 1) {
    fprintf(stderr, "usage: stencil SIZE STEPS [HOST...]\n");
    return 2;
  }
  for (int column = 0; column < size; ++column) {
    plate[column] = next[column] = 100; /* One edge is hot. */
  }
  print_place(0);
  for (int step = 1, visited = 0; step <= steps; ++step) {
    relax(plate, next, size);
    double* other = plate;
    plate = next;
    next = other;
    if (migrate_point()) {
      print_place(step);
    }
    if (visited < hosts && step >= (visited + 1) * steps / (hosts + 1)) {
      go_to(words[3 + visited++]);
      print_place(step);
    }
  }
  if (getenv("STENCIL_SAVE") != NULL) {
    save(plate, size, getenv("STENCIL_SAVE"));
  }
  uint64_t sum = 0;
  for (size_t i = 0; i < (size_t)size * size; ++i) {
    uint64_t bits;
    memcpy(&bits, &plate[i], sizeof bits);
    sum = sum * 31 + bits;
  }
  printf("sum %016llx\n", (unsigned long long)sum);
  free(plate);
  free(next);
  return 0;
}
