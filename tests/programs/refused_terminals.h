#pragma once
// Pseudo-terminals of the program's own that are not carried.

#include <sys/ioctl.h>
#include <termios.h>

#include "tests/programs/check.h"
#include "tests/programs/refused_limits.h"

namespace refused {

inline int open_master() {
  const int master = check::called(::open("/dev/ptmx", O_RDWR | O_NOCTTY), "open /dev/ptmx");
  const int unlocked = 0;
  check::called(::ioctl(master, TIOCSPTLCK, &unlocked), "TIOCSPTLCK");
  return master;
}

inline int open_slave(int master) {
  return check::called(::ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY), "TIOCGPTPEER");
}

/// Nobody can tell whether a slave side is open elsewhere or has never been opened.
inline Verify terminal_unopened() {
  const int master = open_master();
  return [master] {
    const int slave = open_slave(master);
    CHECK_EQUAL(::write(slave, "x", 1), 1);
    char byte = 0;
    CHECK_EQUAL(::read(master, &byte, 1), 1);
    CHECK_EQUAL(byte, 'x');
  };
}

/// The program has not read that its input was thrown away.
inline Verify terminal_packet() {
  const int master = open_master();
  const int slave = open_slave(master);
  const int wanted = 1;
  check::called(::ioctl(master, TIOCPKT, &wanted), "TIOCPKT");
  check::called(::ioctl(slave, TCFLSH, TCIFLUSH), "TCFLSH");
  return [master, slave] {
    char byte = 0;
    CHECK_EQUAL(::read(master, &byte, 1), 1);
    CHECK_EQUAL(byte, TIOCPKT_FLUSHREAD);
    CHECK_EQUAL(::write(slave, "x", 1), 1);
  };
}

}  // namespace refused
