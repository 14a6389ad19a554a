# frozen_string_literal: true

require_relative "helper"
require "sidekiq_flow/web"
require "rack"

# Asks Sidekiq::Web itself.
class TestPages < Minitest::Test
  APP = Sidekiq::Web.new
  ODD = "a/<b>'+\u{e9}"

  def setup
    redis("FLUSHDB")
  end

  def test_a_run_without_a_record_is_not_found
    assert_equal 404, get("/workflows/#{RUN_ID}").first
  end

  # An id that a path cannot hold is in the query; the app may be mounted anywhere.
  def test_an_id_may_be_any_text
    redis("HSET", "swf:flow:#{ODD}", "state", "running", "started", "1", "template", "<i>")
    redis("ZADD", "swf:flows:running", 1, ODD)
    query = "?id=#{CGI.escape(ODD)}"
    status, list = get("/workflows", "/admin")
    assert_equal 200, status
    assert_includes list, "href=\"/admin/workflows#{query}\""
    status, page = get("/workflows#{query}", "/admin")
    assert_equal 200, status
    assert_includes page, "action=\"/admin/workflows#{query}\""
    assert_includes page, "&lt;i&gt;"
    refute_includes list + page, "<i>"
    refute_includes list + page, "<b>"
  end

  def test_a_run_without_a_tree_shows_the_jobs_that_were_found
    redis("HSET", "swf:flow:#{RUN_ID}", "state", "running", "started", "1", "adopted", "1")
    redis("ZADD", "retry", 40, JSON.generate(job(class: "Odd<b>", workflow_run_id: RUN_ID, error_class: "<b>Error")))
    _, page = get("/workflows/#{RUN_ID}")
    assert_includes page, "The tree of this run is not known."
    assert_includes page, "Odd&lt;b&gt;"
    assert_includes page, "&lt;b&gt;Error"
    refute_includes page, "<b>"
  end

  # Steps of a run that the plain gem started have no numbers.
  def test_a_dead_step_without_a_number_is_shown
    run = "swf:flow:#{RUN_ID}"
    redis("HSET", run, "state", "failed", "started", "1", "adopted", "1")
    failure = {"class" => "Odd", "error_class" => "IOError", "error_message" => "no disk", "at" => 40}
    redis("HSET", "#{run}:failed", "jid:gone", JSON.generate(failure), "jid:again",
      JSON.generate(failure.merge("class" => "Even", "inferred" => true)))
    _, page = get("/workflows/#{RUN_ID}")
    assert_includes page, "IOError: no disk"
    refute_includes page, "Even"
    assert_includes page, ">failed<"
    # Plain Ruby, which leaves no trace, may have run it again.
    redis("HDEL", "#{run}:failed", "jid:gone")
    _, page = get("/workflows/#{RUN_ID}")
    assert_includes page, ">running<"
    redis("ZADD", "dead", 40, JSON.generate(job(class: "Even", jid: "again", workflow_run_id: RUN_ID)))
    _, page = get("/workflows/#{RUN_ID}")
    assert_includes page, ">failed<"
    assert_includes page, "Even"
  end

  def test_the_style_is_in_the_head_with_the_nonce_of_its_response
    redis("HSET", "swf:flow:#{RUN_ID}", "state", "done", "started", "1")
    ["/workflows", "/workflows/#{RUN_ID}"].each do |path|
      _, headers, body = APP.call(Rack::MockRequest.env_for("http://test#{path}", "rack.session" => {}))
      nonce = body.each.to_a.join[%r{<style nonce="(.+?)">.+</style>.*</head>}m, 1]
      assert_includes headers["content-security-policy"], "'nonce-#{nonce}'"
    end
  end

  def test_a_form_of_another_site_is_refused
    redis("HSET", "swf:flow:#{RUN_ID}", "state", "running", "started", "1")
    status, = ask("/workflows/#{RUN_ID}", method: "POST", params: {"cancel" => "1"})
    assert_equal 403, status
    assert_equal "running", redis("HGET", "swf:flow:#{RUN_ID}", "state")
  end

  private

  def get(path, mounted = "")
    ask(path, script_name: mounted)
  end

  def ask(path, **options)
    status, _, body = APP.call(Rack::MockRequest.env_for("http://test#{path}", "rack.session" => {}, **options))
    text = +""
    body.each { |part| text << part }
    # The pages have more of Sidekiq around it.
    [status, text[%r{<section.*</section>}m]]
  end

  def redis(*command)
    Sidekiq.redis { |conn| conn.call(*command) }
  end
end
