/* Commit and recovery of one move, for SPIN. README.md says how names map to the code.
 *
 * One process, one move, one page that does not travel in the image. Each party is a loop of atomic
 * guarded steps. What the kernel does when a process dies is part of the step in which it dies.
 */

#ifndef CRASHES
#define CRASHES 5 /* of workers, daemons and the cell's init, together */
#endif
#ifndef CUTS
#define CUTS 3 /* of the link; each loses any part of what is under way */
#endif
#ifndef HOSTS
#define HOSTS 2 /* of hosts: gone for good, or (destination) started anew */
#endif

/* MISTAKE=number in the environment of the verifier plants one, so that the tests see it found. */
#define RUN_BEFORE_PARK 1
#define SETTLED_IN_DOUBT 2
#define NEVER_TOO_EARLY 3
#define NO_BOOT_ID 4
#define FREED_UNCONFIRMED 5
#define NO_MARK 6
#define NO_WITNESS 7
#define NOT_KEPT 8
#define FREED_IN_DOUBT 9
c_decl { \#include <stdlib.h> };
byte mistake = 0;

mtype = {
  /* messages of the control channel; NEVER and GONE are also what a daemon answers by itself */
  FINAL, RESTORED, RUN, RUNNING, RESUME, DONE, NEVER, GONE, REBOOTED,
  /* the original: FrozenProcess, ParkedProcess, settled; at the end ENDED or LOST */
  HERE, FROZEN, PARKED, DEPUTY, ENDED, LOST,
  /* the copy: ARMED is restored and dies with its tracer; then COPY_RUNS */
  ARMED, COPY_RUNS, NO_COPY, COPY_ENDED, COPY_LOST,
  /* source worker: phases of HomePhase (libmigrate/state/phase.h), and what only this model has */
  NO_WORKER, OFFERED, FREEZING, CAPTURED, PARKING, COMMITTING, RUN_SENT, IN_DOUBT, ASKED, SERVING,
  OVER,
  /* destination worker: phases of GuestPhase; it shares NO_WORKER and SERVING */
  PREPARED, AWAITS_RUN, TOLD, MARKED, KEPT, RAN, INDEPENDENT
}

/* tests/lint/phases_test.py reads this.
 *
 * HomePhase here: OFFERED, IN_DOUBT, SERVING
 * HomePhase left out: INDEPENDENT, STAYED, ENDING, CHILDREN_LEFT, ENDED
 * Source worker, no HomePhase: NO_WORKER, FREEZING, CAPTURED, PARKING, COMMITTING, RUN_SENT, ASKED,
 *   OVER
 * HandoverPhase here: OFFERED, RUN_SENT, ASKED, SERVING, OVER
 * HandoverPhase left out: OFFERING, CUT
 * GuestPhase here: PREPARED, AWAITS_RUN, TOLD, MARKED, KEPT, RAN, SERVING, INDEPENDENT
 * GuestPhase left out: IN_DOUBT, LEAVING, WENT_ON, NEVER_RAN, ENDED, ENDED_INDEPENDENT, OVER
 *
 * The steps of SourceMove between OFFERED and IN_DOUBT are known to its handover and to the parked
 * process only. A handover that is CUT, whatever it knows, is IN_DOUBT here: it waits for a
 * connection. A home's worker is OVER here once it owes nothing (INDEPENDENT), once the process runs on as
 * if never moved (STAYED), and once it has ended. A guest that moves on is the source of another
 * move (IN_DOUBT, LEAVING, WENT_ON); the rest are its ends, which `copy` and `start_mark` tell here.
 */

mtype original = HERE;
mtype copy = ARMED;
mtype source = OFFERED;
mtype guest = PREPARED;

bool source_daemon = true;
bool destination_daemon = true;
bool source_host = true;
bool destination_host = true;
bool rebooted = false;      /* the destination, since the offer: another boot id, or another directory */
bool cell_init = true;           /* of the cell: as long as it lives, the cell does */
bool init_keeps = false;    /* a duplicate of the userfaultfd (Cell::keep) */
bool worker_holds = true;   /* the destination worker's own userfaultfd */
bool start_mark = false;    /* in the destination's state directory: the copy may have run */
bool page_at_source = true;
bool page_under_way = false;
bool page_at_copy = false;

/* What only the properties look at. */
bool ever_ran = false;          /* the copy, if only for a moment */
bool reported = false;          /* the user was told that the process is lost, or that it ended */
bool operator_decided = false;
bool loss_excused = false;      /* a host, or the init of a cell that was to run, was taken away */

/* The connection. After its end each side may still read what had arrived, and then sees the end. */
bool up = true;
chan to_destination = [1] of { mtype };
chan to_source = [2] of { mtype };

byte crashes = CRASHES;
byte cuts = CUTS;
byte hosts = HOSTS;

inline drain(line) {
  do
  :: line?_
  :: empty(line) -> break
  od
}

/* A part of what is under way is lost; what arrives, arrives in order. */
inline lose_some(line) {
  do
  :: nempty(line) && len(line) == 1 -> line?_
  :: len(line) == 2 -> line?passing; line?_; line!passing
  :: break
  od
}

inline lose_page() {
  if
  :: page_under_way = false
  :: skip
  fi
}

inline cut() {
  up = false;
  lose_some(to_destination);
  lose_some(to_source);
  lose_page()
}

/* One side closes: what was sent to it is lost, what it sent may have arrived. */
inline source_hangs_up() {
  up = false;
  drain(to_source);
  lose_some(to_destination);
  lose_page()
}

inline resident_hangs_up() {
  up = false;
  drain(to_destination);
  lose_some(to_source);
  page_under_way = false
}

inline say_to_source(message) {
  if
  :: up -> to_source!message
  :: else
  fi
}

inline say_to_destination(message) {
  if
  :: up -> to_destination!message
  :: else
  fi
}

/* With its init the kernel ends a cell. */
inline end_cell() {
  cell_init = false;
  init_keeps = false;
  if
  :: copy == ARMED -> copy = NO_COPY; page_at_copy = false
  :: copy == COPY_RUNS -> copy = COPY_LOST
  :: else
  fi
}

/* The destination worker dies: an ARMED copy with it (PTRACE_O_EXITKILL), which the init sees and
 * notes; then the init, which has no child left. */
inline end_guest() {
  guest = NO_WORKER;
  worker_holds = false;
  if
  :: copy == ARMED -> end_cell(); start_mark = start_mark && mistake == NO_WITNESS
  :: else
  fi;
  resident_hangs_up()
}

/* The source worker dies: its tracee goes on, in the parking loop if it has got there. (Not while a
 * script runs in it: README.) */
inline end_source() {
  source = NO_WORKER;
  if
  :: original == FROZEN -> original = HERE
  :: else
  fi;
  source_hangs_up()
}

inline thaw() {
  original = HERE;
  source = OVER;
  source_hangs_up()
}

inline settle() {
  original = DEPUTY;
  source = SERVING
}

proctype SourceWorker() {
  mtype passing;
end:
  do
  :: atomic { source == OFFERED -> original = FROZEN; source = FREEZING }
  :: atomic { source == FREEZING -> say_to_destination(FINAL); source = CAPTURED }
  :: atomic { source == CAPTURED && to_source?[RESTORED] -> to_source?RESTORED; source = PARKING }
  :: atomic { source == CAPTURED && original == FROZEN && mistake != RUN_BEFORE_PARK ->
       original = PARKED }  /* but for mode eager, which parks when the destination is ready */
  :: atomic { source == CAPTURED && up && !page_under_way && !page_at_copy ->  /* mode eager */
       page_under_way = true }
  :: atomic { source == PARKING && mistake != RUN_BEFORE_PARK ->
       original = PARKED; source = COMMITTING }
  :: atomic { source == COMMITTING -> say_to_destination(RUN); source = RUN_SENT }
  :: atomic { source == PARKING && mistake == RUN_BEFORE_PARK ->
       say_to_destination(RUN); source = RUN_SENT }
  :: atomic { source == RUN_SENT && to_source?[RUNNING] -> to_source?RUNNING; settle() }

  /* Before it knows the destination ready the worker gives up for any reason, a time limit among
   * them; a process that is parked already is brought back. */
  :: atomic { (source == FREEZING || source == CAPTURED) -> thaw() }
  /* After Run the worker stops waiting for any reason, too. */
  :: atomic { source == RUN_SENT ->
       original = (mistake == SETTLED_IN_DOUBT -> DEPUTY : PARKED);
       source = IN_DOUBT; source_hangs_up() }
  :: atomic { (source == SERVING || source == ASKED) && !up && empty(to_source) ->
       source = IN_DOUBT; source_hangs_up() }

  /* Resume reaches the worker that serves; without one, and without a cell, the daemon answers. */
  :: atomic { source == IN_DOUBT && destination_daemon &&
              (guest == SERVING || guest == INDEPENDENT) ->
       drain(to_destination); drain(to_source); page_under_way = false;
       up = true; to_destination!RESUME; source = ASKED }
  :: atomic { source == IN_DOUBT && destination_daemon && guest == NO_WORKER && !cell_init &&
              !(rebooted && reported) ->
       drain(to_destination); drain(to_source); page_under_way = false;
       up = true; source = ASKED;
       if
       :: rebooted && mistake != NO_BOOT_ID -> to_source!REBOOTED
       :: (!rebooted || mistake == NO_BOOT_ID) && start_mark -> to_source!GONE
       :: (!rebooted || mistake == NO_BOOT_ID) && !start_mark -> to_source!NEVER
       fi }
  :: atomic { mistake == NEVER_TOO_EARLY && source == IN_DOUBT && destination_daemon &&
              guest == AWAITS_RUN ->
       drain(to_source); up = true; source = ASKED; to_source!NEVER }
  :: atomic { source == ASKED && to_source?[RUNNING] -> to_source?RUNNING; settle() }
  :: atomic { source == ASKED && to_source?[NEVER] && original == PARKED ->
       to_source?NEVER; thaw() }
  :: atomic { source == ASKED && to_source?[REBOOTED] -> to_source?REBOOTED;
       source = IN_DOUBT; source_hangs_up(); reported = true }

  :: atomic { source == SERVING && up && page_at_source && !page_under_way && !page_at_copy ->
       page_at_source = mistake != FREED_UNCONFIRMED;
       page_under_way = true }
  :: atomic { source == SERVING && up && page_at_copy && page_at_source ->  /* Confirm */
       page_at_source = false }
  :: atomic { mistake == FREED_IN_DOUBT && source == IN_DOUBT && page_at_copy ->
       page_at_source = false }
  :: atomic { (source == SERVING || source == ASKED) && to_source?[DONE] -> to_source?DONE;
       settle(); source = OVER; page_at_source = false; source_hangs_up() }
  :: atomic { (source == SERVING || source == ASKED) && to_source?[GONE] -> to_source?GONE;
       original = ENDED; source = OVER; page_at_source = false; reported = true;
       source_hangs_up() }
  od
}

/* Starts a worker for a parked process that has none; it cannot know whether Run was sent. */
proctype SourceDaemon() {
end:
  do
  :: atomic { !source_daemon && source_host -> source_daemon = true }
  :: atomic { source_daemon && source == NO_WORKER && (original == PARKED || original == DEPUTY) ->
       source = IN_DOUBT }
  od
}

proctype DestinationWorker() {
  mtype passing;
end:
  do
  :: atomic { guest == PREPARED && to_destination?[FINAL] -> to_destination?FINAL;
       say_to_source(RESTORED); guest = AWAITS_RUN }
  :: atomic { guest == AWAITS_RUN && to_destination?[RUN] -> to_destination?RUN;
       guest = TOLD }
  :: atomic { guest == TOLD -> start_mark = (mistake != NO_MARK); guest = MARKED }
  :: atomic { guest == MARKED && cell_init ->
       init_keeps = (mistake != NOT_KEPT); guest = KEPT }
  :: atomic { guest == KEPT && copy == ARMED ->
       copy = COPY_RUNS; ever_ran = true; guest = RAN }
  :: atomic { guest == RAN -> say_to_source(RUNNING); guest = SERVING }

  /* Until it is told to run it gives up for any reason; after that only with its cell. */
  :: atomic { (guest == PREPARED || guest == AWAITS_RUN) -> end_guest() }
  :: atomic { (guest == TOLD || guest == MARKED || guest == KEPT) && !cell_init ->
       start_mark = false; end_guest() }
  :: atomic { (guest == RAN || guest == SERVING) && copy == COPY_LOST ->
       say_to_source(GONE); guest = INDEPENDENT; worker_holds = false }

  :: atomic { guest == SERVING && to_destination?[RESUME] -> to_destination?RESUME;
       say_to_source(RUNNING) }
  :: atomic { guest == INDEPENDENT && to_destination?[RESUME] -> to_destination?RESUME;
       if
       :: copy == COPY_LOST -> say_to_source(GONE)
       :: else -> say_to_source(DONE)
       fi }
  :: atomic { page_under_way && ((guest == SERVING && copy == COPY_RUNS) ||
                                 (guest == AWAITS_RUN && copy == ARMED)) ->
       page_under_way = false; page_at_copy = true }
  :: atomic { guest == SERVING && (page_at_copy || copy == COPY_ENDED) ->
       init_keeps = false; worker_holds = false; say_to_source(DONE); guest = INDEPENDENT }
  od
}

/* Starts a worker for a cell that has none: it takes the userfaultfd from the init and rebuilds the
 * page map from the page tables. */
proctype DestinationDaemon() {
end:
  do
  :: atomic { !destination_daemon && destination_host -> destination_daemon = true }
  :: atomic { destination_daemon && guest == NO_WORKER && cell_init && copy == COPY_RUNS ->
       worker_holds = init_keeps;
       guest = (page_at_copy && !init_keeps -> INDEPENDENT : SERVING) }
  od
}

/* The process runs to its end once it has what it needs; its init with it. */
proctype Copy() {
end:
  atomic { copy == COPY_RUNS && page_at_copy ->
    copy = COPY_ENDED; cell_init = false; init_keeps = false }
}

proctype Crashes() {
  mtype passing;
end:
  do
  :: atomic { crashes > 0 && source != NO_WORKER && source != OVER -> crashes--; end_source() }
  :: atomic { crashes > 0 && guest != NO_WORKER -> crashes--;
       loss_excused = loss_excused || (start_mark && !cell_init); end_guest() }
  :: atomic { crashes > 0 && source_daemon -> crashes--; source_daemon = false }
  :: atomic { crashes > 0 && destination_daemon -> crashes--; destination_daemon = false }
  :: atomic { crashes > 0 && cell_init -> crashes--;
       loss_excused = loss_excused || start_mark; end_cell() }
  :: atomic { hosts > 0 && source_host -> hosts--; loss_excused = true;
       source_host = false; source_daemon = false; end_source(); original = LOST;
       page_at_source = false }
  :: atomic { hosts > 0 && destination_host -> hosts--; loss_excused = true;
       destination_daemon = false; end_cell(); end_guest();
       if
       :: destination_host = false
       :: rebooted = true;
          if  /* nothing was synced to the disk */
          :: start_mark = false
          :: skip
          fi
       fi }
  od
}

proctype Network() {
  mtype passing;
end:
  do
  :: atomic { cuts > 0 && up -> cuts--; cut() }
  od
}

/* The source is in doubt, and the destination's host is gone or was started anew. */
#define operator_needed \
  (source == IN_DOUBT && !up && (!destination_host || rebooted))

/* migratectl resolve --resume-source | --give-up */
proctype Operator() {
end:
  do
  :: atomic { operator_needed ->
       if
       :: original == PARKED -> original = HERE
       :: original = ENDED; page_at_source = false
       fi;
       source = OVER; operator_decided = true; reported = true }
  od
}

#define source_runs (original == HERE)
#define copy_runs (copy == COPY_RUNS)
/* Where nothing moves any more, all is well, or the user has been told. */
#define settled \
  ((source_runs && !copy_runs) || (copy_runs && !source_runs && page_at_copy) || \
   copy == COPY_ENDED || reported || \
   (source == OVER && original == DEPUTY) /* owes nothing: the rest is the home link's */ || \
   !source_host /* the process is lost with it, or waits for its pages and is shown so */)

proctype Properties() {
end:
  do
  :: atomic { source_runs && copy_runs -> assert(false) }                         /* two copies */
  :: atomic { source_runs && ever_ran && !operator_decided -> assert(false) }     /* run twice */
  :: atomic { copy_runs && !page_at_copy && !init_keeps && !worker_holds ->
       assert(false) }                                      /* a missing page would read as zero */
  :: atomic { copy_runs && !page_at_copy && !page_under_way && !page_at_source && source_host &&
              !operator_decided ->
       assert(false) }                                                   /* a page nobody holds */
  :: atomic { source_runs && !page_at_source -> assert(false) }        /* back without its memory */
  :: atomic { original == ENDED && copy != COPY_ENDED && !loss_excused ->
       assert(false) }                                                      /* lost for no reason */
  :: atomic { timeout && !settled -> assert(false) }                                    /* stuck */
  od
}

init {
  atomic {
    c_code { if (getenv("MISTAKE")) { now.mistake = atoi(getenv("MISTAKE")); } };
    run SourceWorker();
    run SourceDaemon();
    run DestinationWorker();
    run DestinationDaemon();
    run Copy();
    run Crashes();
    run Network();
    run Operator();
    run Properties()
  }
}
