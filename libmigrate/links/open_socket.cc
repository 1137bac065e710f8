#include "libmigrate/links/open_socket.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include "libmigrate/links/internal/link_namespace.h"

namespace migrate {

Result<void> give_name(int fd, const SocketName& local) {
  MIGRATE_TRY(let_bind_anywhere(fd, local.family(), true));
  if (::bind(fd, local.address(), local.size()) != 0) {
    return fail(system_error("bind a socket to", local.to_string()));
  }
  return let_bind_anywhere(fd, local.family(), false);
}

}  // namespace migrate
