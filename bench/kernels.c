/* STREAM's triad and a Jacobi relaxation: what a linked library costs a job that nobody moves,
 * counted in instructions by bench/linked. With KERNELS_POINTS the job comes to a point after each
 * step.
 *
 *   kernels stream|jacobi SIZE STEPS */
#ifdef KERNELS_POINTS
#include <libmigrate/migrate.h>
#define POINT() migrate_point()
#else
#define POINT() 0
#endif
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((noinline)) static double stream(size_t size, int steps, double* memory) {
  double* a = memory;
  const double* b = memory + size;
  double* c = memory + 2 * size;
  for (int step = 0; step < steps; ++step) {
    for (size_t i = 0; i < size; ++i) {
      a[i] = b[i] + 3 * c[i];
    }
    c[step % size] = a[step % size];
    (void)POINT();
  }
  return a[size / 2];
}

__attribute__((noinline)) static double jacobi(size_t size, int steps, double* memory) {
  double* from = memory;
  double* to = memory + size * size;
  for (int step = 0; step < steps; ++step) {
    for (size_t row = 1; row + 1 < size; ++row) {
      for (size_t column = 1; column + 1 < size; ++column) {
        const double* at = from + row * size + column;
        to[row * size + column] = (at[-(ptrdiff_t)size] + at[size] + at[-1] + at[1]) / 4;
      }
    }
    double* other = from;
    from = to;
    to = other;
    (void)POINT();
  }
  return from[size + 1];
}

int main(int count, char** words) {
  const size_t size = count > 2 ? (size_t)atoi(words[2]) : 0;
  const int steps = count > 3 ? atoi(words[3]) : 0;
  const int is_stream = count > 1 && strcmp(words[1], "stream") == 0;
  if (size < 3 || steps < 1) {
    fprintf(stderr, "usage: kernels stream|jacobi SIZE STEPS\n");
    return 2;
  }
  const size_t words_used = is_stream ? 3 * size : 2 * size * size;
  double* memory = malloc(words_used * sizeof *memory);
  if (memory == NULL) {
    return 1;
  }
  for (size_t i = 0; i < words_used; ++i) {
    memory[i] = (double)(i % 97);
  }
  printf("%.17g\n", is_stream ? stream(size, steps, memory) : jacobi(size, steps, memory));
  free(memory);
  return 0;
}
