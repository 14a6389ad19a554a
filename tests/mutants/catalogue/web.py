"""The web page: what keeps strangers out, and untrusted text from becoming HTML."""

from __future__ import annotations

from ..mutant import in_file

_ACCESS = "web/test_access.py::"
_PAGE = "web/test_run_page.py::"
_LIVE = "web/test_live_pages.py::"

access = in_file("web/access.py")
forms = in_file("web/form_check.py")
rendering = in_file("web/rendering.py")
reads = in_file("web/shared_reads.py")
feeds = in_file("web/feeds.py")
app = in_file("web/runs_app.py")
server = in_file("web/page_server.py")
ids = in_file("store/run_ids.py")
drawing = in_file("web/step_numbers_view.py")

WEB = [
    access(
        "web-any-host",
        "A page of another site, whose name leads to 127.0.0.1, sees and cancels runs (DNS rebinding).",
        "return bool(self.authorize or self.credentials) or is_loopback(host)",
        "return True",
        _ACCESS + "test_a_stranger_sees_nothing",
    ),
    access(
        "web-any-address",
        "Without a password, other machines see the pages.",
        "if self.credentials is None and not _is_local(request):",
        "if False:",
        _ACCESS + "test_a_stranger_sees_nothing",
    ),
    access(
        "web-proxy-is-local",
        "A proxy of this machine makes all the world local.",
        "return not proxied and request.client",
        "return request.client",
        _ACCESS + "test_a_proxy_of_this_machine_does_not_make_all_the_world_local",
    ),
    access(
        "web-authorize-any-value",
        "A function of the host that returns a response, or a coroutine's object, lets all in.",
        "return answer is True",
        "return bool(answer)",
        _ACCESS + "test_a_stranger_sees_nothing",
    ),
    access(
        "web-name-only",
        "Any password is right.",
        "return same_name and same_password",
        "return same_name",
        _ACCESS + "test_a_wrong_password",
    ),
    forms(
        "web-no-token",
        "A page of another site sends forms.",
        'not hmac.compare_digest(fields.pop(FIELD, "").encode(), known.encode())',
        "not fields",
        _ACCESS + "test_another_site_cannot_press_it",
    ),
    forms(
        "web-other-site",
        "A page of a neighbouring site, which can set a cookie, sends forms.",
        "if not is_own(request.headers):",
        "if False:",
        _ACCESS + "test_another_site_cannot_press_it",
    ),
    rendering(
        "web-not-escaped",
        "Arguments and errors of jobs become HTML.",
        "autoescape=True,",
        "autoescape=False,",
        _PAGE + "test_nothing_of_a_run_becomes_html",
    ),
    rendering(
        "web-surrogates",
        "A name that is not UTF-8 makes a page unreadable.",
        'return text.encode("utf-8", "replace").decode()',
        "return text",
        _PAGE + "test_nothing_of_a_run_becomes_html",
    ),
    reads(
        "web-read-for-each",
        "Each browser reads the run anew.",
        "if found is None or not found.is_recent():",
        "if True:",
        _LIVE + "test_reads_are_shared_and_so_are_errors",
        _LIVE + "test_browsers_of_a_page_share_what_is_read",
    ),
    reads(
        "web-one-leaves-all-leave",
        "A browser that goes away cancels the read of the others.",
        "await asyncio.shield(asyncio.wrap_future(found.future))",
        "await asyncio.wrap_future(found.future)",
        _LIVE + "test_reads_are_shared_and_so_are_errors",
    ),
    feeds(
        "web-reads-for-ever",
        "A page that was closed is read for ever.",
        "                feed.task.cancel()\n",
        "",
        _LIVE + "test_browsers_of_a_page_share_what_is_read",
    ),
    app(
        "web-reader-acts",
        "A read-only page cancels runs.",
        "if action is None or self.read_only:",
        "if action is None:",
        _ACCESS + "test_a_reader_has_no_buttons",
    ),
    app(
        "web-problem-ends-the-stream",
        "A Redis that is away for a moment ends each stream with an error.",
        "    except (FlowError, *FAULTS) as e:\n        return Shown(",
        "    except ZeroDivisionError as e:\n        return Shown(",
        _LIVE + "test_a_problem_is_shown_and_goes_away",
    ),
    server(
        "web-open-to-all",
        "The pages are served to other machines without a password.",
        "if credentials is None and not is_loopback(host):",
        "if False:",
        "web/test_web_command.py::test_addresses_without_a_password",
    ),
    ids(
        "web-id-is-a-pattern",
        "What is searched for is read as a pattern.",
        '_SPECIAL.sub(r"\\\\\\1", prefix)',
        "prefix",
        "web/test_run_lists.py::test_a_run_is_found_by_its_id_or_by_how_it_begins",
    ),
    drawing(
        "web-stride",
        "A box of a repeated chain counts the steps of its neighbours.",
        "return codes[first : first + stride * times : stride]",
        "return codes[first : first + times]",
        "web/test_tree_picture.py::test_repetitions_of_a_chain_are_one_frame",
        "web/test_tree_picture.py::test_each_step_is_in_one_box_and_boxes_are_apart",
    ),
]
