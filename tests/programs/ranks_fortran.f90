! What ranks.c does, by two of the Fortran interfaces of MPI: mpi_f08, and mpif.h in `add_up`.
program ranks
  use mpi_f08
  implicit none
  integer :: rank, ranks_there, here, step, i, steps, times, units
  type(MPI_Comm) :: turned
  double precision :: value, block(100), total, own(2), all(2)
  character(len=4096) :: word, stop_file
  logical :: is_there

  call MPI_Init()
  call MPI_Comm_rank(MPI_COMM_WORLD, rank)
  call MPI_Comm_size(MPI_COMM_WORLD, ranks_there)
  call get_command_argument(1, word)
  read (word, *) steps
  call get_command_argument(2, word)
  read (word, *) times
  call get_command_argument(3, word)
  read (word, *) units
  call get_command_argument(4, stop_file)
  if (rank == 0) units = units * times
  call MPI_Comm_split(MPI_COMM_WORLD, 0, -rank, turned)
  call MPI_Comm_rank(turned, here)
  value = rank
  total = 0
  do step = 0, steps - 1
    do i = 1, units * 1000
      value = value * 0.999999d0 + 1d-6
    end do
    block = value
    call MPI_Sendrecv_replace(block, 100, MPI_DOUBLE_PRECISION, modulo(here + 1, ranks_there), 0, &
                              modulo(here - 1, ranks_there), 0, turned, MPI_STATUS_IGNORE)
    own = [block(1), 0d0]
    if (rank == 0) then
      inquire (file=trim(stop_file), exist=is_there)
      if (is_there) own(2) = 1
    end if
    call add_up(own, all)
    total = total + all(1)
    if (all(2) /= 0) exit
  end do
  if (rank == 0) print '(i0, a, es25.16)', step + 1, ' steps ', total
  call MPI_Comm_free(turned)
  call MPI_Finalize()
end program ranks

subroutine add_up(own, all)
  implicit none
  include 'mpif.h'
  double precision :: own(2), all(2)
  integer :: code
  call MPI_ALLREDUCE(own, all, 2, MPI_DOUBLE_PRECISION, MPI_SUM, MPI_COMM_WORLD, code)
end subroutine add_up
