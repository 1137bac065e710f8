"""What each machine of `pair` does; the first one directs."""

import socket
import sys

from hosts import DONE, Daemon, finish, start_program, wait_until

FIRST, SECOND = "192.168.77.1", "192.168.77.2"
PORT, PORT_WITHOUT_RDMA, PORT_OF_END = 7070, 7071, 7079


def connect(port):
    try:
        return socket.create_connection((SECOND, port), 1)
    except OSError:
        return None


def check(outcome, transport, *hosts):
    if outcome.status != DONE or outcome.object["transport"] != transport:
        sys.exit(f"expected a move over {transport}: {outcome}\n" +
                 "\n".join(host.log.read_text() for host in hosts))


def be_first():
    first = Daemon("first", f"{FIRST}:{PORT}", rdma=FIRST)
    third = Daemon("third", f"{FIRST}:{PORT_WITHOUT_RDMA}")
    process = start_program()
    if not wait_until(lambda: connect(PORT), 120):
        sys.exit("the other machine does not come up")
    check(first.move(process, f"{SECOND}:{PORT}", "--wait", "done"), "rdma", first)
    check(first.move(process, f"{FIRST}:{PORT_WITHOUT_RDMA}", "--wait", "done"), "tcp", first, third)
    problem = finish(process, seconds=120)
    connect(PORT_OF_END)
    print(problem or "moved over RDMA to another machine, and back to a third daemon over TCP")
    for host in (first, third):
        host.stop()
    return 1 if problem else 0


def be_second():
    end = socket.create_server((SECOND, PORT_OF_END))
    second = Daemon("second", f"{SECOND}:{PORT}", rdma=SECOND)
    end.accept()
    second.stop()
    return 0


if __name__ == "__main__":
    sys.exit(be_first() if sys.argv[1] == "first" else be_second())
