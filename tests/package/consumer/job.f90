! A Fortran job that links libmigrate by iso_c_binding.
program job
  use, intrinsic :: iso_c_binding
  implicit none

  type, bind(c) :: migrate_options
    integer(c_size_t) :: size = 0
    type(c_ptr) :: socket = c_null_ptr
    type(c_ptr) :: mode = c_null_ptr
    type(c_ptr) :: wait = c_null_ptr
    real(c_double) :: retry_seconds = 0
    real(c_double) :: time_limit_seconds = 0
    type(c_funptr) :: progress = c_null_funptr
    type(c_ptr) :: progress_data = c_null_ptr
  end type

  interface
    function migrate_check(pid, destination, options, report) bind(c)
      import :: c_int, c_ptr, migrate_options
      integer(c_int), value :: pid
      type(c_ptr), value :: destination
      type(migrate_options), intent(in) :: options
      type(c_ptr), value :: report
      integer(c_int) :: migrate_check
    end function
    function migrate_strerror(status) bind(c)
      import :: c_int, c_ptr
      integer(c_int), value :: status
      type(c_ptr) :: migrate_strerror
    end function
    function strlen(text) bind(c)
      import :: c_ptr, c_size_t
      type(c_ptr), value :: text
      integer(c_size_t) :: strlen
    end function
  end interface

  character(kind=c_char, len=28), target :: socket = "/nonexistent/migrated.sock" // c_null_char
  type(migrate_options) :: options
  integer(c_int) :: status
  character(kind=c_char), pointer :: letters(:)
  type(c_ptr) :: text

  options%size = c_sizeof(options)
  options%socket = c_loc(socket)
  status = migrate_check(0_c_int, c_null_ptr, options, c_null_ptr)
  text = migrate_strerror(status)
  call c_f_pointer(text, letters, [strlen(text)])
  print "(a,i0,*(a))", "status ", status, ": ", letters
end program
