! A matrix power in Fortran that goes on at another host.
!
!   kernel SIZE STEPS HOST...
program kernel
  use, intrinsic :: iso_fortran_env, only: real64, int64, output_unit
  use libmigrate
  implicit none

  real(real64), allocatable :: matrix(:, :), vector(:)
  character(64) :: word
  integer :: size, steps, step, hosts, i

  if (command_argument_count() < 2) stop 2
  call get_command_argument(1, word)
  read (word, *) size
  call get_command_argument(2, word)
  read (word, *) steps
  hosts = command_argument_count() - 2

  allocate(matrix(size, size), vector(size))
  do i = 1, size
    matrix(:, i) = [(1.0_real64 / (i + step), step=1, size)]
  end do
  vector = 1

  call print_place()
  do i = 0, hosts
    do step = 1, steps
      vector = matmul(matrix, vector)
      vector = vector / maxval(vector)
      if (migrate_point() == 1) call print_place()
    end do
    if (i < hosts) call go_to(i + 3)
  end do
  print '(a, z16.16)', 'sum ', transfer(sum(vector), 0_int64)

contains

  subroutine print_place()
    type(migrate_place) :: place
    character(:), allocatable :: why

    if (migrate_here(place, why) == MIGRATE_DONE) then
      print '(3a, i0, a)', 'at ', place%host, ' after ', place%moves, ' moves'
    else
      print '(2a)', 'nowhere: ', why
    end if
    flush (output_unit)
  end subroutine

  subroutine go_to(argument)
    integer, intent(in) :: argument
    type(migrate_refusal), allocatable :: refusals(:)
    character(:), allocatable :: why
    integer :: number

    call get_command_argument(argument, word)
    if (migrate_self(word, retry_seconds=5d0, message=why, refusals=refusals) /= MIGRATE_DONE) then
      print '(2a)', 'stays: ', why
      do number = 1, ubound(refusals, 1)
        print '(4a)', '  ', refusals(number)%code, ': ', refusals(number)%remedy
      end do
    end if
    call print_place()
  end subroutine

end program kernel
