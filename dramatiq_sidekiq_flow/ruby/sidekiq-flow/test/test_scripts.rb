# frozen_string_literal: true

require_relative "helper"

# On a Redis of its own: REDIS_URL.
class TestScripts < Minitest::Test
  Scripts = Companion::Scripts

  def setup
    Sidekiq.redis { |conn| conn.call("FLUSHDB") }
  end

  def test_redis_knows_each_script_by_the_same_sha
    files = Dir[File.expand_path("../lib/sidekiq_flow/lua/*.lua", __dir__)]
    assert_equal files.map { |path| File.basename(path, ".lua") }.sort, Scripts::SHAS.keys.sort
    Scripts::SHAS.each do |name, sha|
      assert_equal sha, Sidekiq.redis { |conn| conn.call("SCRIPT", "LOAD", Scripts::SOURCES.fetch(name)) }, name
    end
  end

  def test_a_script_that_redis_does_not_know_is_sent
    Sidekiq.redis do |conn|
      conn.call("SCRIPT", "FLUSH")
      keys = %w[queue:ruby swf:inflight:w swf:workers]
      2.times { assert_nil Scripts.run(conn, "fetch", keys, ["w", "1", 1, 1, "", 0]) }
    end
  end

  def test_an_error_of_a_script_is_raised
    Sidekiq.redis do |conn|
      conn.call("SET", "queue:ruby", "not a list")
      assert_raises(RedisClient::CommandError) { Scripts.run(conn, "requeue", %w[swf:inflight:w queue:ruby], ["1:1"]) }
    end
  end

  def test_a_chain_is_stored_once_and_read_back
    storage = Companion::CallbackStorage.new(min_bytes: 100)
    children = Array.new(20) { |n| {"__type__" => "job", "class" => "A", "args" => [n, "ä"]} }
    stack = [[BARRIER, {"__type__" => "chain", "children" => children}, false]]
    stored = storage.store(stack)
    assert_equal "reference", stored[0][1]["__type__"]
    # Another thread remembers nothing of it.
    assert_equal [stack, stack], [storage.retrieve(stored), in_a_thread { storage.retrieve(stored) }]
    ttl = Sidekiq.redis { |conn| conn.call("TTL", "swf:callbacks:#{stored[0][1]["chain"]}") }
    assert_in_delta Companion::Lifetimes::RETRY_HORIZON + 86_400, ttl, 60
    Sidekiq.redis { |conn| conn.call("DEL", "swf:callbacks:#{stored[0][1]["chain"]}") }
    assert_raises(Companion::CallbacksMissing) { in_a_thread { storage.retrieve(stored) } }
  end

  private

  def in_a_thread(&block)
    Thread.new(&block).tap { |thread| thread.report_on_exception = false }.value
  end
end
