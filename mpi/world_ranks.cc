#include "mpi/world_ranks.h"

#include <pthread.h>

#include <cstdlib>
#include <new>

namespace migrate::mpi {
namespace {

// A communicator's attribute is made by one thread at a time.
pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;

int copy_nothing(MPI_Comm, int, void*, void*, void*, int* is_copied) {
  *is_copied = 0;
  return MPI_SUCCESS;
}

int free_table(MPI_Comm, int, void* table, void*) {
  std::free(table);
  return MPI_SUCCESS;
}

}  // namespace

struct WorldRanks::Table {
  int size;

  int* ranks() { return reinterpret_cast<int*>(this + 1); }
  const int* ranks() const { return reinterpret_cast<const int*>(this + 1); }
};

bool WorldRanks::create(const Library& library) {
  library_ = &library;
  return library.comm_size(library.world, &world_size_) == MPI_SUCCESS &&
         library.comm_group(library.world, &world_group_) == MPI_SUCCESS &&
         library.comm_create_keyval(copy_nothing, free_table, &key_, nullptr) == MPI_SUCCESS;
}

int WorldRanks::of(MPI_Comm communicator, int rank) const {
  if (communicator == library_->world) {
    return rank >= 0 && rank < world_size_ ? rank : kNone;
  }
  const Table* const table = table_of(communicator);
  return table != nullptr && rank >= 0 && rank < table->size ? table->ranks()[rank] : kNone;
}

bool WorldRanks::is_of_all(MPI_Comm communicator) const {
  int size = 0;
  return communicator == library_->world ||
         (library_->comm_size(communicator, &size) == MPI_SUCCESS && size == world_size_);
}

const WorldRanks::Table* WorldRanks::table_of(MPI_Comm communicator) const {
  void* table = nullptr;
  int is_there = 0;
  if (library_->comm_get_attr(communicator, key_, &table, &is_there) != MPI_SUCCESS) {
    return nullptr;
  }
  if (is_there != 0) {
    return static_cast<const Table*>(table);
  }
  pthread_mutex_lock(&making);
  library_->comm_get_attr(communicator, key_, &table, &is_there);
  if (is_there == 0) {
    table = make_table(communicator);
    if (table != nullptr && library_->comm_set_attr(communicator, key_, table) != MPI_SUCCESS) {
      std::free(table);
      table = nullptr;
    }
  }
  pthread_mutex_unlock(&making);
  return static_cast<const Table*>(table);
}

WorldRanks::Table* WorldRanks::make_table(MPI_Comm communicator) const {
  MPI_Group group = nullptr;
  int is_between_groups = 0;
  int size = 0;
  library_->comm_test_inter(communicator, &is_between_groups);
  if ((is_between_groups != 0 ? library_->comm_remote_group(communicator, &group)
                              : library_->comm_group(communicator, &group)) != MPI_SUCCESS) {
    return nullptr;
  }
  library_->group_size(group, &size);
  // Its ranks, then what these are in the world.
  const std::size_t bytes = sizeof(Table) + sizeof(int) * static_cast<std::size_t>(size);
  void* const memory = std::malloc(bytes);
  auto* const own = static_cast<int*>(std::malloc(bytes));
  Table* table = nullptr;
  if (memory != nullptr && own != nullptr) {
    table = new (memory) Table{size};
    for (int rank = 0; rank < size; ++rank) {
      own[rank] = rank;
    }
    library_->group_translate_ranks(group, size, own, world_group_, table->ranks());
    for (int rank = 0; rank < size; ++rank) {
      int& there = table->ranks()[rank];
      there = there >= 0 && there < world_size_ ? there : kNone;
    }
  } else {
    std::free(memory);
  }
  std::free(own);
  library_->group_free(&group);
  return table;
}

}  // namespace migrate::mpi
