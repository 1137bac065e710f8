#pragma once

#include <mpi.h>

#include "mpi/library.h"

namespace migrate::mpi {

/// Which rank of MPI_COMM_WORLD a rank of another communicator is. Each communicator is asked once:
/// it keeps the answer as an attribute, which MPI takes away with it. Thread: any, after create().
class WorldRanks {
 public:
  static constexpr int kNone = -1;

  /// False if MPI says no. After MPI_Init.
  bool create(const Library& library);

  /// kNone for ranks outside MPI_COMM_WORLD, MPI_PROC_NULL and what is no rank.
  int of(MPI_Comm communicator, int rank) const;

  /// Whether as many ranks are in it as in MPI_COMM_WORLD.
  bool is_of_all(MPI_Comm communicator) const;

  int world_size() const { return world_size_; }

 private:
  struct Table;

  const Table* table_of(MPI_Comm communicator) const;
  Table* make_table(MPI_Comm communicator) const;

  const Library* library_ = nullptr;
  MPI_Group world_group_ = nullptr;
  int world_size_ = 0;
  int key_ = 0;
};

}  // namespace migrate::mpi
