"""Calls that functions make, and state: what goes over the wire, and in which order."""

from __future__ import annotations

from bourse import _messages as messages
from bourse import _values as values

GRID = """
    import asyncio, time
    import bourse
    from bourse import as_completed, call, function, gather, state, submit, Conflict, NoCapacity, Timeout

    @function
    def one(n): return call("other.double", n)
    @function
    def many(n): return gather(*[submit("other.double", i) for i in range(n)])
    @function
    def first(n):
        return [future.result() for future in as_completed([submit("other.double", i) for i in range(n)])]
    @function
    def mapped(n): return list(bourse.Target("other.double").map(range(n), in_flight=2))
    @function
    def as_they_come(n): return list(bourse.Target("other.double").map(range(n), in_flight=2, ordered=False))
    @function
    def starred(): return list(bourse.Target("other.add").starmap([(1, 2), (3, 4)]))
    @function
    def first_of_many():
        taken = []
        items = (taken.append(n) or n for n in range(10**9))
        results = bourse.Target("other.double").map(items, in_flight=3)
        return [next(results), len(taken)]
    @function
    def fails(): return list(bourse.Target("other.double").map(range(10), in_flight=3, ordered=False))
    @function
    def own(n): return one.options(timeout="2s", queue_wait=1, context={"k": "v"}).call(n)
    @function
    def caught():
        try: call("other.double", 1)
        except NoCapacity as error: return [error.code, error.function, error.hint]
    @function
    def patient():
        try: submit("other.double", 1).result(timeout=0.05)
        except Timeout as error: return "gave up"
    @function
    async def aone(n): return await submit("other.double", n)
    @function
    async def amany(n): return await asyncio.gather(*[submit("other.double", i) for i in range(n)])
    @function
    def in_thread():
        import threading
        caught = []
        def body():
            try: call("other.double", 1)
            except RuntimeError as error: caught.append(str(error))
        thread = threading.Thread(target=body); thread.start(); thread.join()
        return caught
    @function
    def slow_then_call(seconds): time.sleep(seconds); return call("other.double", 4)

    @function
    def add(amount):
        balance = state("accounts/ann")
        balance.set(balance.get(0) + amount)
        state("accounts/log", "audit").set([amount])
        return balance.get()
    @function
    def forget(fail):
        state("a").delete()
        if fail: raise ValueError
    @function
    def listing(): return [[row.key, row.value, row.version] for row in state("accounts").list("a", limit=2)]
    @function
    def expected(version): state("a/b").update(1, expected=version)
    @function
    def refused(): return state("a/b").get()
"""


def answer(node, call, factor=2):
    args, _ = values.decode(call[1])
    node.reply(call[0], args[0] * factor)


def test_call_waits_in_its_own_message(node):
    node.welcomed(GRID)
    outer = node.invoke("one", 21)
    kind, call, payload = node.next()
    assert (kind, call.function, call.parent, call.attempt, call.wait) == ("call", "other.double", outer, 1, True)
    answer(node, (call, payload))
    assert node.outcome(outer) == 42


def test_gather_waits_once_for_all(node):
    node.welcomed(GRID)
    outer = node.invoke("many", 3)
    calls = [node.next() for _ in range(3)]
    assert [(kind, call.wait) for kind, call, _ in calls] == [("call", False)] * 3
    kind, wait, _ = node.next()
    assert kind == "wait" and wait.call == outer and not wait.any
    assert list(wait.requests) == [call.request for _, call, _ in calls]
    for _, call, payload in reversed(calls):
        answer(node, (call, payload))
    assert node.outcome(outer) == [0, 2, 4]


def test_as_completed(node):
    node.welcomed(GRID)
    outer = node.invoke("first", 3)
    calls = [node.expect("call") for _ in range(3)]
    for left, at in ((3, 1), (2, 2), (1, 0)):
        wait, _ = node.expect("wait")
        assert len(wait.requests) == left and wait.any
        answer(node, calls[at])
    assert node.outcome(outer) == [2, 4, 0]


def test_map_is_bounded_and_in_order(node):
    node.welcomed(GRID)
    outer = node.invoke("mapped", 4)
    calls = [node.expect("call") for _ in range(2)]
    assert node.next()[0] == "wait"  # two under way, no more
    answer(node, calls[1])
    answer(node, calls[0])
    for _ in range(2):
        answer(node, node.expect("call"))
    assert node.outcome(outer) == [0, 2, 4, 6]


def test_map_as_they_come(node):
    node.welcomed(GRID)
    outer = node.invoke("as_they_come", 4)
    first, second = node.expect("call"), node.expect("call")
    wait, _ = node.expect("wait")
    assert wait.any and list(wait.requests) == [first[0].request, second[0].request]
    answer(node, second)
    third = node.expect("call")
    assert list(node.expect("wait")[0].requests) == [first[0].request, third[0].request]
    answer(node, third)
    answer(node, node.expect("call"))
    answer(node, first)
    outcome = node.outcome(outer)
    assert outcome[:2] == [2, 4] and sorted(outcome) == [0, 2, 4, 6]


def test_map_takes_items_as_there_is_room_and_leaves_nothing_behind(node):
    node.welcomed(GRID)
    outer = node.invoke("first_of_many")
    calls = [node.expect("call") for _ in range(3)]
    answer(node, calls[0])
    cancelled = [node.expect("cancel")[0].request for _ in range(2)]
    assert cancelled == [call.request for call, _ in calls[1:]]
    assert node.outcome(outer) == [0, 3]


def test_the_first_failure_of_a_map_cancels_the_others(node):
    node.welcomed(GRID)
    outer = node.invoke("fails")
    calls = [node.expect("call") for _ in range(3)]
    node.reply(calls[1][0], failure=messages.Failure(code="no_capacity"))
    assert [node.expect("cancel")[0].request for _ in range(2)] == [calls[0][0].request, calls[2][0].request]
    assert node.outcome(outer).code == "no_capacity"


def test_starmap(node):
    node.welcomed(GRID)
    outer = node.invoke("starred")
    for sum in (3, 7):
        call, payload = node.expect("call")
        assert values.decode(payload) == [[sum // 2, sum // 2 + 1], {}]
        node.reply(call, sum)
    assert node.outcome(outer) == [3, 7]


def test_options_and_own_functions(node):
    node.welcomed(GRID)
    outer = node.invoke("own", 1)
    call = node.expect("call")
    assert (call[0].function, call[0].timeout_ms, call[0].queue_wait_ms) == ("mod.one", 2000, 1000)
    assert dict(call[0].context) == {"k": "v"}
    answer(node, call)
    assert node.outcome(outer) == 2


def test_a_failed_call_is_the_callers_error_unless_caught(node):
    node.welcomed(GRID)
    failure = messages.Failure(code="no_capacity", message="waited 10 s", hint="Add machines.")
    outer = node.invoke("caught")
    node.reply(node.expect("call")[0], failure=failure)
    assert node.outcome(outer) == ["no_capacity", "other.double", "Add machines."]
    outer = node.invoke("one", 1)
    node.reply(node.expect("call")[0], failure=failure)
    mine = node.outcome(outer)
    assert (mine.code, mine.type, mine.hint) == ("no_capacity", "NoCapacity", "Add machines.")
    assert mine.message == "other.double: waited 10 s"


def let_go(node, failure, levels=1):
    """What becomes of a call's failure that so many functions let go."""
    for _ in range(levels):
        outer = node.invoke("one", 1)
        node.reply(node.expect("call")[0], failure=failure)
        failure = node.outcome(outer)
    return failure


def test_a_refusal_that_is_not_caught_keeps_its_code(node):
    node.welcomed(GRID)
    for code in ("blocked_exceeded", "store_unavailable", "no_capacity", "conflict", "timeout", "depth_exceeded"):
        failure = messages.Failure(code=code, message="why", hint="What to do.", retry_after_ms=1500)
        for levels in (1, 3):
            last = let_go(node, failure, levels)
            assert (last.code, last.message) == (code, "other.double: why")
            assert (last.hint, last.retry_after_ms) == ("What to do.", 1500)
    # What is true of the inner call alone would mislead the caller of the outer one.
    for code in ("not_found", "bad_arguments", "unauthorized", "cancelled"):
        last = let_go(node, messages.Failure(code=code, message="why"), 3)
        assert (last.code, last.message) == ("function_error", "other.double: why")
        assert last.type == {"not_found": "NotFound", "bad_arguments": "BadArguments"}.get(code, last.type)


def test_the_innermost_error_is_told_once(node):
    node.welcomed(GRID)
    traceback = "Traceback (most recent call last):\n  in inner\nLookupError: no such thing"
    failure = messages.Failure(code="function_error", type="LookupError", message="no such thing", traceback=traceback)
    last = let_go(node, failure, 3)
    assert (last.code, last.type, last.message) == ("function_error", "LookupError", "no such thing")
    assert last.traceback.count("in inner") == 1 and last.traceback.count("in one") == 3
    assert last.traceback.endswith(traceback)
    assert len(let_go(node, failure, 200).traceback) <= 16_384
    failure.traceback = "x" * 30_000 + "LookupError: no such thing"
    assert let_go(node, failure).traceback.endswith("LookupError: no such thing")
    assert len(let_go(node, failure).traceback) <= 16_384


def test_a_timed_result_cancels_and_waits_for_the_slot(node):
    node.welcomed(GRID)
    outer = node.invoke("patient")
    call, _ = node.expect("call")
    assert node.next()[0] == "wait"
    kind, cancelled, _ = node.next()
    assert kind == "cancel" and cancelled.request == call.request
    node.reply(call, failure=messages.Failure(code="cancelled"))
    assert node.outcome(outer) == "gave up"


def test_await(node):
    node.welcomed(GRID)
    outer = node.invoke("aone", 5)
    call = node.expect("call")
    wait, _ = node.expect("wait")
    assert list(wait.requests) == [call[0].request] and wait.any
    answer(node, call)
    assert node.outcome(outer) == 10
    outer = node.invoke("amany", 20)
    for _ in range(20):
        answer(node, node.expect("call"))
    assert node.outcome(outer) == [2 * n for n in range(20)]


def test_interrupt_while_waiting(node):
    node.welcomed(GRID)
    for function in ("one", "aone"):
        outer = node.invoke(function, 1)
        call, _ = node.expect("call")
        if function == "aone":
            node.expect("wait")
        assert node.ping() < 1
        node.cancel(outer, interrupt=True)
        assert node.expect("cancel")[0].request == call.request  # it has no slot until a reply tells it so
        node.reply(call, failure=messages.Failure(code="cancelled"))
        assert node.outcome(outer).code == "timeout"


def test_the_socket_comes_back_from_the_watchdog(node):
    node.welcomed(GRID)
    for _ in range(10):
        outer = node.invoke("slow_then_call", 0.03)
        node.ping()
        answer(node, node.expect("call"))
        assert node.outcome(outer) == 8


def test_threads_are_refused(node):
    node.welcomed(GRID)
    assert "own thread" in node.run("in_thread")[0]


def test_state_is_buffered(node):
    node.welcomed(GRID)
    outer = node.invoke("add", 5)
    read, _ = node.expect("read")
    assert (read.key.name, read.key.module, list(read.writes), read.call) == ("accounts/ann", "", [], outer)
    node.value(read, 10, version=3)
    read, _ = node.expect("read")  # reads its own write: the node lays it over
    assert [(write.key.name, write.key.module, values.decode(write.value)) for write in read.writes] == [
        ("accounts/ann", "", 15),
        ("accounts/log", "audit", [5]),
    ]
    node.value(read, 15, version=3)
    result, payload = node.expect("result")
    assert values.decode(payload) == 15 and not result.writes  # flushed with the read


def test_writes_go_with_the_result_or_not_at_all(node):
    node.welcomed(GRID)
    node.invoke("forget", True)
    result, _ = node.expect("result")
    assert result.HasField("failure") and not result.writes
    node.invoke("forget", False)
    result, _ = node.expect("result")
    assert [(write.key.name, write.delete) for write in result.writes] == [("a", True)]


def test_list_goes_on(node):
    node.welcomed(GRID)
    outer = node.invoke("listing")
    for keys, more in ((["accounts/a1", "accounts/a2"], True), (["accounts/a3"], False)):
        scan, _ = node.expect("scan")
        assert (scan.prefix.name, scan.limit) == ("accounts/a", 2)
        assert scan.after == ("" if more else "accounts/a2")
        page = messages.ToWorker()
        page.page.request, page.page.more = scan.request, more
        for key in keys:
            page.page.rows.add(key=key, value=values.encode(key[-1]), version=1)
        node.send(page)
    assert node.outcome(outer) == [["accounts/a1", "1", 1], ["accounts/a2", "2", 1], ["accounts/a3", "3", 1]]


def test_state_errors_keep_their_code(node):
    node.welcomed(GRID)
    outer = node.invoke("expected", 2)
    node.value(node.expect("read")[0], 0, version=5)
    failure = node.outcome(outer)
    assert failure.code == "conflict" and "version 5, not 2" in failure.message
    outer = node.invoke("refused")
    read, _ = node.expect("read")
    refusal = messages.ToWorker()
    refusal.value.request = read.request
    refusal.value.failure.code = "bad_state"
    node.send(refusal)
    assert node.outcome(outer).code == "bad_state"
