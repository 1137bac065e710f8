// A domain code in small: Jacobi's method for Laplace's equation on a grid, rows dealt out to the
// ranks of MPI in strips, each of which exchanges its outer rows with its neighbours in every step.
// In a band of rows that wanders through the domain each cell takes HEAT times as much work, as
// where a front is resolved or something burns: so ranks have much to do one after the other.
// bench/balance_live runs it. Usage: jacobi ROWS COLUMNS STEPS HEAT
//
// Rank 0 says "ready" after the first step, and at last a sum over all cells, which depends on all
// that was exchanged and on nothing else.

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

static const double kBandShare = 0.5;  // Of the domain.
static const long kCheckEach = 10;     // Steps, after which all agree on how far they are.

struct strip {
  long first;  // Of its rows, in the domain.
  long rows;
  long columns;
  double* now;  // With a row of each neighbour's above and below.
  double* next;
};

static struct strip make_strip(long rows, long columns, int rank, int ranks) {
  struct strip strip = {.first = rows * rank / ranks, .columns = columns};
  strip.rows = rows * (rank + 1) / ranks - strip.first;
  const size_t cells = (size_t)((strip.rows + 2) * columns);
  strip.now = calloc(cells, sizeof(double));
  strip.next = calloc(cells, sizeof(double));
  if (strip.now == NULL || strip.next == NULL) {
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  for (long row = 1; row <= strip.rows; ++row) {
    strip.now[row * columns] = strip.next[row * columns] = 1;  // One edge is warm.
  }
  return strip;
}

static void exchange(const struct strip* strip, int rank, int ranks) {
  const int above = rank > 0 ? rank - 1 : MPI_PROC_NULL;
  const int below = rank + 1 < ranks ? rank + 1 : MPI_PROC_NULL;
  const long columns = strip->columns;
  double* const last = strip->now + strip->rows * columns;
  MPI_Sendrecv(strip->now + columns, (int)columns, MPI_DOUBLE, above, 0, last + columns,
               (int)columns, MPI_DOUBLE, below, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
  MPI_Sendrecv(last, (int)columns, MPI_DOUBLE, below, 1, strip->now, (int)columns, MPI_DOUBLE,
               above, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
}

// Returns by how much cells have changed.
static double sweep(struct strip* strip, long hot_begin, long hot_end, long heat) {
  const long columns = strip->columns;
  double change = 0;
  for (long row = 1; row <= strip->rows; ++row) {
    const long place = strip->first + row - 1;
    const long times = place >= hot_begin && place < hot_end ? heat : 1;
    const double* const cells = strip->now + row * columns;
    for (long column = 1; column + 1 < columns; ++column) {
      const double mean = (cells[column - 1] + cells[column + 1] + cells[column - columns] +
                           cells[column + columns]) /
                          4;
      double value = mean;
      for (long i = 0; i < times; ++i) {  // It tends to the mean, however often.
        value = 0.5 * (value + mean);
      }
      strip->next[row * columns + column] = value;
      change += value > cells[column] ? value - cells[column] : cells[column] - value;
    }
  }
  double* const now = strip->now;
  strip->now = strip->next;
  strip->next = now;
  return change;
}

int main(int argc, char** argv) {
  int rank = 0;
  int ranks = 0;
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  if (argc != 5) {
    fprintf(stderr, "usage: jacobi ROWS COLUMNS STEPS HEAT\n");
    MPI_Abort(MPI_COMM_WORLD, 2);
  }
  const long rows = atol(argv[1]);
  const long steps = atol(argv[3]);
  const long heat = atol(argv[4]);
  struct strip strip = make_strip(rows, atol(argv[2]), rank, ranks);
  const long band = (long)((double)rows * kBandShare);

  double change = 0;
  for (long step = 0; step < steps; ++step) {
    const long begin = (rows - band) * step / (steps > 1 ? steps - 1 : 1);
    exchange(&strip, rank, ranks);
    const double own = sweep(&strip, begin, begin + band, heat);
    if (step % kCheckEach == 0 || step + 1 == steps) {
      MPI_Allreduce(&own, &change, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    }
    if (step == 0 && rank == 0) {
      printf("ready\n");
      fflush(stdout);
    }
  }
  double own = 0;
  double all = 0;
  for (long cell = strip.columns; cell < (strip.rows + 1) * strip.columns; ++cell) {
    own += strip.now[cell];
  }
  MPI_Reduce(&own, &all, 1, MPI_DOUBLE, MPI_SUM, 0, MPI_COMM_WORLD);
  if (rank == 0) {
    printf("%ld steps %.17g %.17g\n", steps, all, change);
  }
  free(strip.now);
  free(strip.next);
  MPI_Finalize();
  return 0;
}
