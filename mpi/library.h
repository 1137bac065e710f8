#pragma once

#include <mpi.h>

namespace migrate::mpi {

/// The function of that name in the MPI library of this process, behind ours. Ends the process if
/// there is none: then nothing of MPI could have been called. Thread: any.
void* find_function(const char* name);

/// Functions of the MPI library that are called to measure, found as find_function() does, so that
/// this library can be loaded into programs without MPI, and works where MPI is loaded by
/// dlopen(3).
struct Library {
  decltype(&PMPI_Comm_rank) comm_rank;
  decltype(&PMPI_Comm_size) comm_size;
  decltype(&PMPI_Comm_group) comm_group;
  decltype(&PMPI_Comm_remote_group) comm_remote_group;
  decltype(&PMPI_Comm_test_inter) comm_test_inter;
  decltype(&PMPI_Comm_create_keyval) comm_create_keyval;
  decltype(&PMPI_Comm_get_attr) comm_get_attr;
  decltype(&PMPI_Comm_set_attr) comm_set_attr;
  decltype(&PMPI_Group_size) group_size;
  decltype(&PMPI_Group_translate_ranks) group_translate_ranks;
  decltype(&PMPI_Group_free) group_free;
  decltype(&PMPI_Type_size) type_size;
  MPI_Comm world;

  /// False if the process's MPI is not the one that this library was built for.
  bool find();
};

}  // namespace migrate::mpi
