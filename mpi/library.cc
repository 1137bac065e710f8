#include "mpi/library.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>

namespace migrate::mpi {
namespace {

// Nothing if there is no such name. `where`: RTLD_NEXT, or RTLD_DEFAULT.
void* find_symbol(void* where, const char* name) {
  if (void* const found = dlsym(where, name); found != nullptr) {
    return found;
  }
  // Loaded by dlopen(3), as by an interpreter, it is not among the libraries behind this one.
  void* const library = dlopen(MIGRATE_MPI_SONAME, RTLD_LAZY | RTLD_NOLOAD);
  return library == nullptr ? nullptr : dlsym(library, name);
}

template <typename Function>
void find_into(Function& function, const char* name) {
  function = reinterpret_cast<Function>(find_function(name));
}

}  // namespace

void* find_function(const char* name) {
  void* const found = find_symbol(RTLD_NEXT, name);
  if (found == nullptr) {
    std::fprintf(stderr, "libmigrate-mpi: no MPI library has %s\n", name);
    std::abort();
  }
  return found;
}

bool Library::find() {
  // A program may have a copy of it in front of the library, which is then everybody's.
  void* const symbol = find_symbol(RTLD_DEFAULT, "ompi_mpi_comm_world");
  if (symbol == nullptr) {
    return false;
  }
  world = static_cast<MPI_Comm>(symbol);
  find_into(comm_rank, "PMPI_Comm_rank");
  find_into(comm_size, "PMPI_Comm_size");
  find_into(comm_group, "PMPI_Comm_group");
  find_into(comm_remote_group, "PMPI_Comm_remote_group");
  find_into(comm_test_inter, "PMPI_Comm_test_inter");
  find_into(comm_create_keyval, "PMPI_Comm_create_keyval");
  find_into(comm_get_attr, "PMPI_Comm_get_attr");
  find_into(comm_set_attr, "PMPI_Comm_set_attr");
  find_into(group_size, "PMPI_Group_size");
  find_into(group_translate_ranks, "PMPI_Group_translate_ranks");
  find_into(group_free, "PMPI_Group_free");
  find_into(type_size, "PMPI_Type_size");
  return true;
}

}  // namespace migrate::mpi
