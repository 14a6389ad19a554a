# frozen_string_literal: true

module SidekiqFlow::Companion
  # What Sidekiq's rules for failures do sums with, unseen.
  READ_BY_SIDEKIQ = {
    "backtrace" => ->(value) { value == true || value == false || value.is_a?(Integer) },
    "failed_at" => ->(value) { value.is_a?(Numeric) && value.between?(0, 1e14) },
    # Sidekiq takes one off when a person presses "retry": -1 is common.
    "retry_count" => ->(value) { value.is_a?(Integer) && value.between?(-1_000_000, 1_000_000) },
    "retry_for" => ->(value) { value.is_a?(Numeric) && value.between?(0, 1_000_000_000) },
    "retry_queue" => ->(value) { value.is_a?(String) },
    "wrapped" => ->(value) { value.is_a?(String) }
  }.freeze

  # The class of what is not a job and was wrapped to be buried.
  MALFORMED = "MalformedPayload"

  class << self
    # A time as this Sidekiq writes it: 7.x float seconds, 8.x milliseconds.
    def stamp(now = Time.now.to_f)
      (Sidekiq::VERSION.to_i >= 8) ? (now * 1000).floor : now
    end

    # A job with what Sidekiq notes of a failure (job_retry.rb, process_retry).
    def failed(job, error, queue)
      message = error.message.to_s[0, 10_000]
      after = job.merge("queue" => job["retry_queue"] || queue, "error_message" => message.scrub,
        "error_class" => error.class.name.delete_prefix("#{name}::"))
      if after["retry_count"].is_a?(Integer)
        after.merge("retried_at" => stamp, "retry_count" => after["retry_count"] + 1)
      else
        after.merge("failed_at" => stamp, "retry_count" => 0)
      end
    end

    # What goes to `dead` for a payload that is not to run. What Sidekiq could not
    # push again is wrapped: `args` shows it, `raw` holds its bytes in base64.
    def corpse(raw, error, queue)
      raw = unwrapped(raw)
      job = parse(raw)
      return wrapped(raw, MalformedPayload.new("The payload is not a JSON object."), queue) if job.nil?
      return wrapped(raw, error, queue, job["jid"]) unless job["class"].is_a?(String) && job["args"].is_a?(Array)

      job["jid"] = fingerprint(raw) unless job["jid"].is_a?(String) && !job["jid"].empty?
      JSON.generate(failed(job, error, queue))
    rescue JSON::JSONError, EncodingError # Infinity, half of a surrogate pair
      wrapped(raw, error, queue)
    end

    # The JSON object of a payload, or nil.
    def parse(raw)
      text = raw.dup.force_encoding("UTF-8")
      return nil unless text.valid_encoding?

      job = JSON.parse(text)
      job if job.is_a?(Hash)
    rescue JSON::JSONError, EncodingError
      nil
    end

    # The error of a payload that Sidekiq must not be given, or nil: what its
    # Processor cannot read ends a thread, and the job would be taken for ever.
    def fault(raw)
      job = parse(raw)
      return MalformedPayload.new("The payload is not a JSON object.") if job.nil?
      # Ruby reads half of a surrogate pair, and 1e999, and cannot write them.
      return MalformedPayload.new("The payload holds what is not JSON.") if raw.match?(/\\u[dD]|[eE]\+?\d{3}|\d{300}/) && !writable?(job)
      return InvalidPayload.new("A job needs a class, not #{job["class"].inspect[0, 200]}.") unless job["class"].is_a?(String) && !job["class"].empty?
      return InvalidPayload.new("A job needs an array of args, not #{job["args"].inspect[0, 200]}.") unless job["args"].is_a?(Array)

      name, = READ_BY_SIDEKIQ.find { |field, readable| !job[field].nil? && !readable.call(job[field]) }
      InvalidPayload.new("The job's #{name} cannot be read: #{job[name].inspect[0, 200]}.") if name
    end

    # The bytes inside of what +corpse+ has wrapped; all others as they are.
    def unwrapped(raw)
      return raw unless raw.include?(MALFORMED)

      job = parse(raw)
      return raw unless job && job["class"] == MALFORMED && job["raw"].is_a?(String)

      unwrapped(job["raw"].unpack1("m0"))
    rescue ArgumentError # no base64
      raw
    end

    # An id for a payload without one: the same bytes are the same job.
    def fingerprint(raw)
      Digest::SHA1.hexdigest(raw)[0, 24]
    end

    private

    def wrapped(raw, error, queue, jid = nil)
      wrapper = {
        "class" => MALFORMED, "args" => [raw.dup.force_encoding("UTF-8").scrub[0, 1000]],
        "jid" => (jid.is_a?(String) && !jid.empty?) ? jid : fingerprint(raw),
        "queue" => queue, "retry" => 0, "created_at" => stamp, "raw" => [raw].pack("m0")
      }
      JSON.generate(failed(wrapper, error, queue))
    end

    def writable?(job)
      JSON.generate(job)
      true
    rescue JSON::JSONError, EncodingError
      false
    end
  end
end
