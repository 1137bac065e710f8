# find_package(libmigrate) gives the target migrate::client, the C interface (libmigrate.so).
include(${CMAKE_CURRENT_LIST_DIR}/libmigrateTargets.cmake)
