// An MPI job of known imbalance: in each step rank 0 computes so many times as much as the others,
// all send to the next, and all add up. Usage: ranks STEPS TIMES UNITS [--marks] [STOP_FILE]
//
// It ends after STEPS, or when STOP_FILE is there. Rank 0 prints what was added up, which depends
// on every message and on nothing else.

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static double compute(double value, long units) {
  for (long i = 0; i < units * 1000; ++i) {
    value = value * 0.999999 + 1e-6;
  }
  return value;
}

int main(int argc, char** argv) {
  int rank = 0;
  int ranks = 0;
  int level = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &level);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  if (argc < 4) {
    fprintf(stderr, "usage: ranks STEPS TIMES UNITS [--marks] [STOP_FILE]\n");
    MPI_Abort(MPI_COMM_WORLD, 2);
  }
  const long steps = atol(argv[1]);
  const long units = atol(argv[3]) * (rank == 0 ? atol(argv[2]) : 1);
  const int marks = argc > 4 && strcmp(argv[4], "--marks") == 0;
  const char* stop = argc > 4 + marks ? argv[4 + marks] : "";

  // In it each rank has another number than in the world.
  MPI_Comm turned;
  MPI_Comm_split(MPI_COMM_WORLD, 0, -rank, &turned);
  int here = 0;
  MPI_Comm_rank(turned, &here);
  const int to = (here + 1) % ranks;
  const int from = (here + ranks - 1) % ranks;

  double value = rank;
  double block[100];
  double sum = 0;
  double is_last = 0;
  long step = 0;
  for (; step < steps && is_last == 0; ++step) {
    value = compute(value, units);
    for (int i = 0; i < 100; ++i) {
      block[i] = value + i;
    }
    MPI_Sendrecv_replace(block, 100, MPI_DOUBLE, to, 0, from, 0, turned, MPI_STATUS_IGNORE);
    const double own[2] = {block[step % 100], rank == 0 && access(stop, F_OK) == 0};
    double all[2];
    MPI_Allreduce(own, all, 2, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    sum += all[0] / ranks;
    is_last = all[1];
    if (marks) {
      MPI_Pcontrol(3);
    }
    if (step == 0 && rank == 0) {
      printf("ready\n");
      fflush(stdout);
    }
  }
  if (rank == 0) {
    printf("%ld steps %.17g\n", step, sum);
  }
  MPI_Comm_free(&turned);
  MPI_Finalize();
  return 0;
}
