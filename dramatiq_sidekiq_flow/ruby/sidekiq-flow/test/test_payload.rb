# frozen_string_literal: true

require_relative "helper"

class TestPayload < Minitest::Test
  Payload = Companion::Payload

  def test_a_job_is_read
    assert_nil Payload.fault(JSON.generate(job))
    assert_equal job, Payload.parse(JSON.generate(job))
  end

  def test_bytes_that_are_not_a_job_are_refused
    ["", "x", "[]", "1", "null", "\xff", "{"].each do |raw|
      assert_nil Payload.parse(raw), raw
      assert_instance_of Companion::MalformedPayload, Payload.fault(raw), raw
    end
  end

  def test_values_that_json_cannot_express_are_refused
    ['{"class":"A","args":[1e999]}', '{"class":"A","args":["\ud800"]}'].each do |raw|
      assert_kind_of Companion::MalformedPayload, Payload.fault(raw), raw
    end
    assert_nil Payload.fault('{"class":"A","args":[1e100,"\ud83d\ude00"]}')
  end

  def test_fields_that_sidekiq_calculates_with_are_checked
    bad = {"class" => 5, "args" => {}, "retry_count" => "3", "failed_at" => "now", "backtrace" => "yes", "wrapped" => 1}
    bad.each do |name, value|
      error = Payload.fault(JSON.generate(job.merge(name => value)))
      assert_instance_of Companion::InvalidPayload, error, name
      assert_includes error.message, name
    end
    assert_nil Payload.fault(JSON.generate(job(retry_count: -1, failed_at: 1.5, backtrace: 3)))
  end

  def test_a_dead_job_has_its_error
    dead = JSON.parse(Payload.dead(JSON.generate(job), Companion::PoisonPill.new("Look."), "ruby"))
    assert_equal "PoisonPill", dead["error_class"]
    assert_equal "Look.", dead["error_message"]
    assert_equal "ruby", dead["queue"]
    assert_equal 0, dead["retry_count"]
    assert_equal job["jid"], dead["jid"]
  end

  def test_a_dead_job_that_failed_before_counts_on
    dead = JSON.parse(Payload.dead(JSON.generate(job(retry_count: 2, failed_at: 1)), RuntimeError.new("again"), "ruby"))
    assert_equal 3, dead["retry_count"]
    assert_equal 1, dead["failed_at"]
    assert dead.key?("retried_at")
  end

  def test_bytes_that_are_not_a_job_are_wrapped_and_unwrapped
    raw = "not json \xff"
    dead = Payload.dead(raw, RuntimeError.new("never seen"), "ruby")
    assert_equal "MalformedPayload", JSON.parse(dead)["error_class"]
    assert_equal Payload.fingerprint(raw), JSON.parse(dead)["jid"]
    assert_equal raw.b, Payload.unwrapped(dead).b
    # Buried once more, it is what it was.
    again = Payload.dead(dead, RuntimeError.new("again"), "ruby")
    assert_equal "MalformedPayload", JSON.parse(again)["error_class"]
    assert_equal raw.b, Payload.unwrapped(again).b
  end

  def test_a_job_without_an_id_gets_one_of_its_bytes
    assert_equal "abc", Payload.jid({"jid" => "abc"}, "raw")
    assert_equal Payload.fingerprint("raw"), Payload.jid({"jid" => ""}, "raw")
    assert_equal Payload.fingerprint("raw"), Payload.jid(nil, "raw")
  end

  def test_a_time_is_sidekiqs
    now = 1_700_000_000.123456
    assert_equal (Sidekiq::VERSION.to_i >= 8) ? 1_700_000_000_123 : now, Payload.stamp(now)
  end
end
