// OpenMP threads and OpenBLAS at work: ROUNDS products of whole-numbered matrices, whose sums are
// exact, so that the output is the same however the work is divided.
#include <cblas.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { kSize = 600 };

static double a[kSize * kSize];
static double b[kSize * kSize];
static double c[kSize * kSize];

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? atoi(argv[1]) : 20;
  uint64_t total = 0;
  for (int round = 0; round < rounds; ++round) {
#pragma omp parallel for
    for (int index = 0; index < kSize * kSize; ++index) {
      a[index] = (index * 7 + round) % 101;
      b[index] = (index * 13 + round) % 97;
    }
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, kSize, kSize, kSize, 1.0, a, kSize, b,
                kSize, 0.0, c, kSize);
    uint64_t sum = 0;
#pragma omp parallel for reduction(+ : sum)
    for (int index = 0; index < kSize * kSize; ++index) {
      sum += (uint64_t)c[index] * (uint64_t)(index % 31 + 1);
    }
    total = total * 31 + sum;
    if (round % 10 == 9) {
      printf("%d %llu\n", round, (unsigned long long)total);
      fflush(stdout);
    }
  }
  printf("total %llu\n", (unsigned long long)total);
  return 0;
}
