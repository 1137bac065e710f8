# Debian packages by CPack, one for each install component; scripts/package builds them, from a build
# whose prefix is /usr (preset package). What else they have is in packaging/.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME libmigrate)
set(CPACK_PACKAGE_VENDOR "libmigrate")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "")  # Each package has its own.
set(CPACK_PACKAGE_CONTACT "The libmigrate authors <libmigrate@localhost>")
set(CPACK_PACKAGE_DIRECTORY ${PROJECT_BINARY_DIR}/packages)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_SET_DESTDIR ON)
set(CPACK_STRIP_FILES ON)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ
    GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
set(CPACK_COMPONENTS_ALL libmigrate1 libmigrate-dev migrate-tools migrate-testbed)
set(CPACK_COMPONENTS_GROUPING ONE_PER_GROUP)

set(MIGRATE_DEBIAN_VERSION ${PROJECT_VERSION}-1)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
set(CPACK_DEBIAN_PACKAGE_SOURCE libmigrate)
# What the programs need is found in them; a program that needs libmigrate1 finds it by its shlibs.
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS_POLICY ">=")
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)

# migrate_package(name section "first line" "further lines" [DEPENDS text] [RECOMMENDS text] [SUGGESTS text])
# A macro, so that CPack sees what it sets.
macro(migrate_package name section summary text)
  cmake_parse_arguments(ARG "" "DEPENDS;RECOMMENDS;SUGGESTS" "" ${ARGN})
  string(TOUPPER ${name} upper)
  set(CPACK_DEBIAN_${upper}_PACKAGE_NAME ${name})
  set(CPACK_DEBIAN_${upper}_PACKAGE_SECTION ${section})
  set(CPACK_DEBIAN_${upper}_DESCRIPTION "${summary}\n${text}")
  set(CPACK_DEBIAN_${upper}_PACKAGE_DEPENDS "${ARG_DEPENDS}")
  set(CPACK_DEBIAN_${upper}_PACKAGE_RECOMMENDS "${ARG_RECOMMENDS}")
  set(CPACK_DEBIAN_${upper}_PACKAGE_SUGGESTS "${ARG_SUGGESTS}")
  file(GLOB control CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/packaging/${name}/*)
  set(CPACK_DEBIAN_${upper}_PACKAGE_CONTROL_EXTRA ${control})
  install(FILES ${PROJECT_SOURCE_DIR}/packaging/copyright ${PROJECT_BINARY_DIR}/changelog.Debian.gz
          DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/${name}
          COMPONENT ${name})
endmacro()

migrate_package(
  libmigrate1 libs "move running processes between hosts: shared library"
  "A job that links libmigrate asks to be moved to another host, and waits for
processes that were. The library needs nothing but the C++ runtime and costs
nothing while it is not used."
  SUGGESTS "migrate-tools")
migrate_package(
  libmigrate-dev libdevel "move running processes between hosts: development files"
  "Headers, what CMake and pkg-config look for, and the manual pages of the C
interface."
  DEPENDS "libmigrate1 (= ${MIGRATE_DEBIAN_VERSION})")
migrate_package(
  migrate-tools admin "move running processes between hosts: daemon and tools"
  "migrated runs on each host; migratectl moves processes between them while
they work: registers and metadata at once, memory as it is touched. What
cannot be moved faithfully is refused, with the reason. The daemon does not
run before an administrator enables it."
  SUGGESTS "migrate-testbed, munge, python3")
migrate_package(
  migrate-testbed utils "move running processes between hosts: several hosts on one machine"
  "testbed makes hosts of network and mount namespaces, each with a daemon of
its own, to try and to test moving processes on one machine."
  DEPENDS "migrate-tools (= ${MIGRATE_DEBIAN_VERSION}), iproute2")

configure_file(packaging/changelog.in changelog.Debian @ONLY)
execute_process(COMMAND gzip -9n -c ${PROJECT_BINARY_DIR}/changelog.Debian
                OUTPUT_FILE ${PROJECT_BINARY_DIR}/changelog.Debian.gz COMMAND_ERROR_IS_FATAL ANY)
install(FILES README.md docs/operations.md docs/security.md docs/state.md
        DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/migrate-tools
        COMPONENT migrate-tools)
if(EXISTS ${PROJECT_SOURCE_DIR}/examples)
  install(DIRECTORY examples
          DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/libmigrate-dev
          COMPONENT libmigrate-dev)
endif()
include(CPack)
