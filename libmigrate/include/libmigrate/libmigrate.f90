! libmigrate for Fortran 2008: the interface of migrate.h. Compile this file with the program, whose
! compiler alone can read its modules, and link libmigrate.so.
!
!   use libmigrate
!   if (migrate_self("hostB", message=why) /= MIGRATE_DONE) print *, trim(why)
module libmigrate
  use, intrinsic :: iso_c_binding
  implicit none
  private

  integer(c_int), parameter, public :: MIGRATE_DONE = 0
  integer(c_int), parameter, public :: MIGRATE_ERROR = 1
  integer(c_int), parameter, public :: MIGRATE_USAGE = 2
  integer(c_int), parameter, public :: MIGRATE_REFUSED = 3
  integer(c_int), parameter, public :: MIGRATE_FAILED = 4
  integer(c_int), parameter, public :: MIGRATE_LOST = 5
  integer(c_int), parameter, public :: MIGRATE_TIMEOUT = 6

  ! How memory follows in a move (migrate_advise).
  integer(c_int), parameter, public :: MIGRATE_ADVICE_NORMAL = 0
  integer(c_int), parameter, public :: MIGRATE_ADVICE_EAGER = 1
  integer(c_int), parameter, public :: MIGRATE_ADVICE_LAZY = 2
  integer(c_int), parameter, public :: MIGRATE_ADVICE_DISCARD = 3
  integer(c_int), parameter, public :: MIGRATE_ADVICE_LOCAL = 4
  integer(c_int), parameter, public :: MIGRATE_ADVICE_SEQUENTIAL = 5
  integer(c_int), parameter, public :: MIGRATE_ADVICE_RANDOM = 6
  integer(c_int), parameter, public :: MIGRATE_ADVICE_HOT_FIRST = 7

  ! Where the caller is.
  type, public :: migrate_place
    character(:), allocatable :: host     ! Its name,
    character(:), allocatable :: address  ! and how other hosts reach its daemon.
    character(:), allocatable :: home     ! The same of the host where it was started.
    integer :: moves = 0
    character(:), allocatable :: origin   ! With serial and epoch: which process it is, for ever.
    integer(c_int64_t) :: serial = 0
    integer(c_int64_t) :: epoch = 0
  end type

  ! A reason against a move.
  type, public :: migrate_refusal
    character(:), allocatable :: code, object, reason, remedy
  end type

  ! What the program does before a move and after it, as in migrate.h: c_funloc of procedures that are
  ! bind(C). `before` is a function that returns a type(c_ptr): c_null_ptr, or the text of a veto.
  type, bind(C), public :: migrate_hooks
    integer(c_size_t) :: size = 0
    type(c_funptr) :: before = c_null_funptr
    type(c_funptr) :: after = c_null_funptr
    type(c_funptr) :: failed = c_null_funptr
    type(c_ptr) :: data = c_null_ptr
  end type

  public :: migrate_add_hooks, migrate_remove_hooks
  public :: migrate_version, migrate_point, migrate_hold, migrate_release, migrate_last_error
  public :: migrate_self, migrate_check_self, migrate_here, migrate_advise

  ! As in migrate.h, member by member.
  type, bind(C) :: c_options
    integer(c_size_t) :: size = 0
    type(c_ptr) :: socket = c_null_ptr
    type(c_ptr) :: mode = c_null_ptr
    type(c_ptr) :: wait = c_null_ptr
    real(c_double) :: retry_seconds = 0
    real(c_double) :: time_limit_seconds = 0
    type(c_funptr) :: progress = c_null_funptr
    type(c_ptr) :: progress_data = c_null_ptr
    type(c_ptr) :: wish = c_null_ptr
    type(c_ptr) :: network = c_null_ptr
  end type

  type, bind(C) :: c_identity
    type(c_ptr) :: origin = c_null_ptr
    integer(c_int64_t) :: serial = 0
    integer(c_int64_t) :: epoch = 0
  end type

  type, bind(C) :: c_place
    integer(c_size_t) :: size = 0
    type(c_ptr) :: host = c_null_ptr
    type(c_ptr) :: address = c_null_ptr
    type(c_ptr) :: home = c_null_ptr
    integer(c_int) :: moves = 0
    type(c_identity) :: identity
    integer(c_int64_t) :: owed_pages = 0
  end type

  type, bind(C) :: c_refusal
    integer(c_size_t) :: size = 0
    type(c_ptr) :: code = c_null_ptr
    type(c_ptr) :: object = c_null_ptr
    type(c_ptr) :: reason = c_null_ptr
    type(c_ptr) :: remedy = c_null_ptr
  end type

  interface
    integer(c_int) function migrate_version() bind(C, name="migrate_version")
      import c_int
    end function
    ! 1 where it was moved, else 0.
    integer(c_int) function migrate_point() bind(C, name="migrate_point")
      import c_int
    end function
    integer(c_int) function c_add_hooks(hooks, number) bind(C, name="migrate_add_hooks")
      import c_int, migrate_hooks
      type(migrate_hooks), intent(in) :: hooks
      integer(c_int), intent(out) :: number
    end function
    integer(c_int) function migrate_remove_hooks(number) bind(C, name="migrate_remove_hooks")
      import c_int
      integer(c_int), value :: number
    end function
    integer(c_int) function migrate_hold() bind(C, name="migrate_hold")
      import c_int
    end function
    integer(c_int) function migrate_release() bind(C, name="migrate_release")
      import c_int
    end function
    ! How the memory at an address (c_loc) is to follow: MIGRATE_ADVICE_*.
    integer(c_int) function migrate_advise(address, bytes, advice) bind(C, name="migrate_advise")
      import c_int, c_ptr, c_size_t
      type(c_ptr), value :: address
      integer(c_size_t), value :: bytes
      integer(c_int), value :: advice
    end function
    integer(c_int) function c_self(host, options, result) bind(C, name="migrate_self")
      import c_int, c_char, c_ptr, c_options
      character(kind=c_char), intent(in) :: host(*)
      type(c_options), intent(in) :: options
      type(c_ptr), intent(out) :: result
    end function
    integer(c_int) function c_check_self(host, options, result) bind(C, name="migrate_check_self")
      import c_int, c_char, c_ptr, c_options
      character(kind=c_char), intent(in) :: host(*)
      type(c_options), intent(in) :: options
      type(c_ptr), intent(out) :: result
    end function
    integer(c_int) function c_here(options, result) bind(C, name="migrate_here")
      import c_int, c_ptr, c_options
      type(c_options), intent(in) :: options
      type(c_ptr), intent(out) :: result
    end function
    subroutine c_free(result) bind(C, name="migrate_result_free")
      import c_ptr
      type(c_ptr), value :: result
    end subroutine
    integer(c_size_t) function c_refusal_count(result) bind(C, name="migrate_result_refusal_count")
      import c_size_t, c_ptr
      type(c_ptr), value :: result
    end function
    integer(c_int) function c_get_refusal(result, number, refusal) &
        bind(C, name="migrate_result_refusal")
      import c_int, c_ptr, c_size_t, c_refusal
      type(c_ptr), value :: result
      integer(c_size_t), value :: number
      type(c_refusal), intent(inout) :: refusal
    end function
    integer(c_int) function c_get_place(result, place) bind(C, name="migrate_result_place")
      import c_int, c_ptr, c_place
      type(c_ptr), value :: result
      type(c_place), intent(inout) :: place
    end function
    type(c_ptr) function c_message(result) bind(C, name="migrate_result_message")
      import c_ptr
      type(c_ptr), value :: result
    end function
    type(c_ptr) function c_last_error() bind(C, name="migrate_last_error")
      import c_ptr
    end function
    integer(c_size_t) function c_length(text) bind(C, name="strlen")
      import c_size_t, c_ptr
      type(c_ptr), value :: text
    end function
  end interface

contains

  ! Moves the caller to `host` and returns there with MIGRATE_DONE; else where it was.
  integer(c_int) function migrate_self(host, retry_seconds, time_limit_seconds, message, refusals) &
      result(status)
    character(*), intent(in) :: host
    double precision, intent(in), optional :: retry_seconds, time_limit_seconds
    character(:), allocatable, intent(out), optional :: message
    type(migrate_refusal), allocatable, intent(out), optional :: refusals(:)
    type(c_options) :: options
    type(c_ptr) :: came_to

    options = made_options(retry_seconds, time_limit_seconds)
    status = c_self(terminated(host), options, came_to)
    if (present(message)) message = text_at(c_message(came_to))
    call take_refusals(came_to, refusals)
    call c_free(came_to)
  end function

  ! Registers hooks; `number` names them.
  integer(c_int) function migrate_add_hooks(hooks, number) result(status)
    type(migrate_hooks), intent(in) :: hooks
    integer(c_int), intent(out) :: number
    type(migrate_hooks) :: sized

    sized = hooks
    sized%size = c_sizeof(sized)
    status = c_add_hooks(sized, number)
  end function

  ! Whether the caller could be moved to `host`.
  integer(c_int) function migrate_check_self(host, message, refusals) result(status)
    character(*), intent(in) :: host
    character(:), allocatable, intent(out), optional :: message
    type(migrate_refusal), allocatable, intent(out), optional :: refusals(:)
    type(c_options) :: options
    type(c_ptr) :: came_to

    options = made_options()
    status = c_check_self(terminated(host), options, came_to)
    if (present(message)) message = text_at(c_message(came_to))
    call take_refusals(came_to, refusals)
    call c_free(came_to)
  end function

  ! Where the caller is. `place` counts if that is MIGRATE_DONE.
  integer(c_int) function migrate_here(place, message) result(status)
    type(migrate_place), intent(out) :: place
    character(:), allocatable, intent(out), optional :: message
    type(c_options) :: options
    type(c_place) :: known
    type(c_ptr) :: came_to

    options = made_options()
    status = c_here(options, came_to)
    known%size = c_sizeof(known)
    if (c_get_place(came_to, known) == 0) then
      place%host = text_at(known%host)
      place%address = text_at(known%address)
      place%home = text_at(known%home)
      place%moves = known%moves
      place%origin = text_at(known%identity%origin)
      place%serial = known%identity%serial
      place%epoch = known%identity%epoch
    end if
    if (present(message)) message = text_at(c_message(came_to))
    call c_free(came_to)
  end function

  ! The message of the last call that has one.
  function migrate_last_error() result(text)
    character(:), allocatable :: text

    text = text_at(c_last_error())
  end function

  type(c_options) function made_options(retry_seconds, time_limit_seconds) result(options)
    double precision, intent(in), optional :: retry_seconds, time_limit_seconds

    options%size = c_sizeof(options)
    if (present(retry_seconds)) options%retry_seconds = retry_seconds
    if (present(time_limit_seconds)) options%time_limit_seconds = time_limit_seconds
  end function

  ! Takes the refusals out of a result. Messages are not taken here: gfortran 12 loses the length of an
  ! optional allocatable string that is handed on.
  subroutine take_refusals(came_to, refusals)
    type(c_ptr), intent(in) :: came_to
    type(migrate_refusal), allocatable, intent(out), optional :: refusals(:)
    type(c_refusal) :: known
    integer(c_size_t) :: number

    if (present(refusals)) then
      allocate(refusals(c_refusal_count(came_to)))
      known%size = c_sizeof(known)
      do number = 1, size(refusals)
        if (c_get_refusal(came_to, number - 1, known) /= 0) exit
        refusals(number)%code = text_at(known%code)
        refusals(number)%object = text_at(known%object)
        refusals(number)%reason = text_at(known%reason)
        refusals(number)%remedy = text_at(known%remedy)
      end do
    end if
  end subroutine

  function terminated(text) result(copy)
    character(*), intent(in) :: text
    character(:), allocatable :: copy

    copy = trim(text) // c_null_char
  end function

  function text_at(address) result(text)
    type(c_ptr), intent(in) :: address
    character(:), allocatable :: text
    character(kind=c_char), pointer :: letters(:)
    integer :: i

    if (.not. c_associated(address)) then
      text = ""
      return
    end if
    call c_f_pointer(address, letters, [c_length(address)])
    allocate(character(size(letters)) :: text)
    do i = 1, size(letters)
      text(i:i) = letters(i)
    end do
  end function

end module libmigrate
